package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"osx-builder/vm"
	"osx-builder/vm/qemu/network"
)

// openNetworks returns what keeps the bridges of the data folder o.Dir.
func openNetworks(o Options, log *slog.Logger) (*network.Manager, error) {
	networks, err := network.Open(network.Config{
		Dir: filepath.Join(o.Dir, "net"), Name: o.Dir,
		Subnet: o.NATSubnet, Isolate: o.Isolate, Bridge: o.Bridge, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the networks: %w", err)
	}
	return networks, nil
}

// CleanNetworks removes every network device, rule and process that drivers
// with this o.Dir made on the host, also under machines that run. It may be
// repeated; no driver with this o.Dir may be open.
func CleanNetworks(ctx context.Context, o Options) error {
	networks, err := openNetworks(o, o.Log)
	if err != nil {
		return err
	}
	if err := networks.Clean(ctx); err != nil {
		return fmt.Errorf("removing the networks: %w", err)
	}
	return nil
}

// Network says whether machines can be attached to networks of type t.
func (d *Driver) Network(t vm.NetworkType) error {
	_, err := d.wires.of(t)
	return err
}

// Close removes the driver's bridges where no machine is plugged in. Machines
// go on running.
func (d *Driver) Close() error {
	d.rest()
	return d.networks.Close()
}

// announce logs which networks are offered and why others are not, and what of
// the host's own may be in their way.
func (d *Driver) announce() {
	var facts []any
	for _, t := range []vm.NetworkType{vm.NAT, vm.HostOnly, vm.Bridged} {
		w, err := d.wires.of(t)
		fact := ""
		var no *vm.Error
		switch {
		case errors.As(err, &no):
			fact = "none: " + no.Message
		case err != nil:
			fact = "none: " + err.Error()
		default:
			fact = w.name()
		}
		facts = append(facts, string(t), fact)
	}
	d.log.Info("networks", facts...)
	warnings, err := d.firewalls()
	if err != nil {
		d.log.Warn("the host's firewall was not looked at", "err", err)
	}
	for _, w := range warnings {
		d.log.Warn("the host's firewall may cut machines off", "what", w)
	}
}

// firewalls says what of the host's own may be in the way of machines on
// bridges.
func (d *Driver) firewalls() ([]string, error) {
	if !d.wires.bridges() {
		return nil, nil
	}
	return d.networks.Warnings()
}
