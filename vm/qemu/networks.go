package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/network"
)

// repairEvery bounds how long a network stays broken, for instance after
// somebody deleted a bridge, killed a dnsmasq or flushed the nftables rules.
// The daemon is not notified of any of these.
const repairEvery = 10 * time.Second

// networks attaches machines to networks and finds their addresses there.
type networks struct {
	manager  *network.Manager
	backends networkBackends
	log      *slog.Logger
}

// networkBackends has the backend of each network type.
type networkBackends map[vm.NetworkType]networkBackend

// chooseBackends gives each network type a bridge if o allows it and the host
// has what a bridge needs, and otherwise QEMU's user network. Bridged machines
// need a bridge, which may be created later.
func chooseBackends(o Options, manager *network.Manager) (networkBackends, error) {
	user := &userBackend{ports: o.Forward}
	managed := bridgeBackend{manager}
	why := manager.Available(network.NAT)
	switch {
	case o.Network == "user":
		user.why = "the daemon runs with -network user"
	case o.Network == "bridge" && why != nil:
		return nil, fmt.Errorf("there can be no bridge for machines: %w", why)
	case o.Network != "" && o.Network != "auto" && o.Network != "bridge":
		return nil, fmt.Errorf("network %q is not one of auto, user and bridge", o.Network)
	case why == nil:
		return networkBackends{vm.NAT: managed, vm.HostOnly: managed, vm.Bridged: managed}, nil
	default:
		user.why = why.Error()
		if managed.available(vm.Bridged) == nil {
			return networkBackends{vm.NAT: user, vm.HostOnly: user, vm.Bridged: managed}, nil
		}
	}
	return networkBackends{vm.NAT: user, vm.HostOnly: user, vm.Bridged: user}, nil
}

// forType returns the backend of networks of type t. The error is a *vm.Error.
func (b networkBackends) forType(t vm.NetworkType) (networkBackend, error) {
	if b[t] == nil {
		return nil, unavailable(t, "it is not one of bridged, hostonly and nat")
	}
	return b[t], b[t].available(t)
}

// hasBridge reports whether any network type uses a bridge.
func (b networkBackends) hasBridge() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(b)), func(n networkBackend) bool { return n.name() == bridgeBackend{}.name() })
}

func unavailable(t vm.NetworkType, why string) error {
	return &vm.Error{
		Code:    vm.CodeNetworkUnavailable,
		Message: fmt.Sprintf("network type %q is not available: %s", t, why),
	}
}

// openNetworks returns the manager of the bridges of the data folder o.Dir.
func openNetworks(o Options, log *slog.Logger) (*network.Manager, error) {
	manager, err := network.Open(network.Config{
		Dir: filepath.Join(o.Dir, "net"), Name: o.Dir,
		Subnet: o.NATSubnet, Isolate: o.Isolate, Bridge: o.Bridge, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the networks: %w", err)
	}
	return manager, nil
}

// CleanNetworks removes every network device, rule and process that drivers
// with this o.Dir made on the host, even under running machines. It may be
// repeated. No driver with this o.Dir may be open.
func CleanNetworks(ctx context.Context, o Options) error {
	manager, err := openNetworks(o, o.Log)
	if err != nil {
		return err
	}
	if err := manager.Clean(ctx); err != nil {
		return fmt.Errorf("removing the networks: %w", err)
	}
	return nil
}

// Network reports whether machines can be attached to networks of type t.
func (d *Driver) Network(t vm.NetworkType) error {
	_, err := d.networks.backends.forType(t)
	return err
}

// logAvailable logs which networks are available, why the others are not, and
// which settings of the host's firewall may block them.
func (n *networks) logAvailable() {
	var facts []any
	for _, t := range []vm.NetworkType{vm.NAT, vm.HostOnly, vm.Bridged} {
		backend, err := n.backends.forType(t)
		fact := ""
		var no *vm.Error
		switch {
		case errors.As(err, &no):
			fact = "none: " + no.Message
		case err != nil:
			fact = "none: " + err.Error()
		default:
			fact = backend.name()
		}
		facts = append(facts, string(t), fact)
	}
	n.log.Info("networks", facts...)
	warnings, err := n.firewallWarnings()
	if err != nil {
		n.log.Warn("cannot read the host's firewall", "err", err)
	}
	for _, w := range warnings {
		n.log.Warn("the host's firewall may block machines", "what", w)
	}
}

// firewallWarnings lists settings of the host's firewall that may block
// machines on bridges.
func (n *networks) firewallWarnings() ([]string, error) {
	if !n.backends.hasBridge() {
		return nil, nil
	}
	return n.manager.Warnings()
}

// repairPeriodically repairs the networks every repairEvery until ctx ends. It logs
// a failure once, not each time that it occurs.
func (n *networks) repairPeriodically(ctx context.Context) {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := n.manager.Repair(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			n.log.Error("cannot repair the networks", "err", err)
		}
	}
}
