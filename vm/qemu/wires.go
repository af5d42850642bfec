package qemu

import (
	"fmt"
	"maps"
	"slices"

	"osx-builder/vm"
	"osx-builder/vm/qemu/network"
)

// wires says what machines of each network type are plugged into.
type wires map[vm.NetworkType]wire

// chooseWires gives each network type a bridge where o allows it and the host
// has what it needs, and else QEMU's user network. Only a bridge has bridged
// machines, so theirs need not be there yet.
func chooseWires(o Options, networks *network.Manager) (wires, error) {
	user := &userNet{ports: o.Forward}
	managed := bridge{networks}
	why := networks.Available(network.NAT)
	switch {
	case o.Network == "user":
		user.why = "the daemon was told so by -network user"
	case o.Network == "bridge" && why != nil:
		return nil, fmt.Errorf("there can be no bridge for machines: %w", why)
	case o.Network != "" && o.Network != "auto" && o.Network != "bridge":
		return nil, fmt.Errorf("network %q is not one of auto, user and bridge", o.Network)
	case why == nil:
		return wires{vm.NAT: managed, vm.HostOnly: managed, vm.Bridged: managed}, nil
	default:
		user.why = why.Error()
		if managed.offers(vm.Bridged) == nil {
			return wires{vm.NAT: user, vm.HostOnly: user, vm.Bridged: managed}, nil
		}
	}
	return wires{vm.NAT: user, vm.HostOnly: user, vm.Bridged: user}, nil
}

// of returns what machines on networks of type t are plugged into. The error
// is an *vm.Error.
func (w wires) of(t vm.NetworkType) (wire, error) {
	if w[t] == nil {
		return nil, unavailable(t, "it is not one of bridged, hostonly and nat")
	}
	return w[t], w[t].offers(t)
}

// bridges says whether any machine is plugged into a bridge.
func (w wires) bridges() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(w)), func(w wire) bool { return w.name() == bridge{}.name() })
}

func unavailable(t vm.NetworkType, why string) error {
	return &vm.Error{
		Code:    vm.CodeNetworkUnavailable,
		Message: fmt.Sprintf("network type %q is not to be had here: %s", t, why),
	}
}
