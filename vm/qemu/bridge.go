package qemu

import (
	"context"
	"fmt"

	"osx-builder/vm"
	"osx-builder/vm/qemu/network"
)

// bridge plugs machines into a bridge of the host, by a tap each.
type bridge struct{ manager *network.Manager }

func (bridge) name() string { return "bridge" }

func (b bridge) offers(t vm.NetworkType) error {
	why := fmt.Errorf("machines are attached to %q alone", vm.NAT)
	if t == vm.NAT {
		why = b.manager.Available(network.NAT)
	}
	if why == nil {
		return nil
	}
	return &vm.Error{
		Code:    vm.CodeNetworkUnavailable,
		Message: fmt.Sprintf("network type %q is not to be had here: %v", t, why),
	}
}

func (b bridge) plug(ctx context.Context, m vm.Machine, _ link) (link, error) {
	if err := b.offers(m.Network); err != nil {
		return link{}, err
	}
	tap, err := b.manager.Attach(ctx, network.Kind(m.Network), m.ID, macAddress(m.ID))
	if err != nil {
		return link{}, fmt.Errorf("plugging the machine into its network: %w", err)
	}
	return link{Tap: tap}, nil
}
