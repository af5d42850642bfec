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
	if why := b.manager.Available(network.Kind(t)); why != nil {
		return unavailable(t, why.Error())
	}
	return nil
}

// plug forwards no ports: the host reaches the guest at its own address.
func (b bridge) plug(ctx context.Context, m vm.Machine, _ link) (link, error) {
	tap, err := b.manager.Attach(ctx, network.Kind(m.Network), m.ID, macAddress(m.ID))
	if err != nil {
		return link{}, fmt.Errorf("plugging the machine into its network: %w", err)
	}
	return link{Tap: tap}, nil
}
