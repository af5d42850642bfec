// Package qemu makes machines on hosts without VMware: it boots the same .vmx
// and .vmdk images on QEMU.
//
// A clone is one qcow2 overlay per disk over the read-only image. A machine
// that runs is a QEMU process which is nobody's child: it outlives the daemon
// and is found again by the lock that it holds on its pid file. All that the
// package knows of a machine is in Machine.Dir:
//
//	machine.json   the hardware; written last, so its presence means a whole clone
//	link.json      tap or forwarded ports of the last start
//	disk0.qcow2    what the guest wrote; one file per disk
//	efivars.fd     EFI's variables, where the image has EFI firmware
//	pid            locked by QEMU as long as it lives
//	qmp, qga       sockets: QEMU's monitor and the guest's agent
//	serial.log     what the guest wrote to its first serial port
//	qemu.log       what QEMU itself complained of since the last start
package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"golang.org/x/sync/singleflight"

	"osx-builder/vm"
	"osx-builder/vm/qemu/network"
)

// Options says how machines are made.
type Options struct {
	Dir         string       // absolute path of the data folder; the driver owns Dir/net
	MachinesDir string       // absolute path of the folder that holds each Machine.Dir, by machine id
	Forward     []int        // guest ports to forward beside 22, where machines are on the user network
	Network     string       // "bridge", "user", or "auto" (or ""): bridge where it is to be had
	QEMU        string       // name or path of QEMU; "" is qemu-system-x86_64
	Log         *slog.Logger // nil: nothing is logged
}

// Driver is the vm.Driver for QEMU. Its methods may be called at once.
type Driver struct {
	log      *slog.Logger
	binaries binaries
	networks *network.Manager
	wire     wire

	monitors turns              // by Machine.Dir
	agents   singleflight.Group // by Machine.Dir and process
	pulses   sync.Map           // process whose guest gave a sign of life, by Machine.Dir

	mu       sync.Mutex
	starting map[string]int // calls of Start under way, by Machine.Dir; guarded by mu
}

var (
	_ vm.Driver    = (*Driver)(nil)
	_ vm.Limiter   = (*Driver)(nil)
	_ vm.Networker = (*Driver)(nil)
	_ vm.Readier   = (*Driver)(nil)
	_ vm.Describer = (*Driver)(nil)
)

const (
	// maxSocketPath is what all systems allow for the path of a Unix socket:
	// 104 bytes on macOS, 108 on Linux, with a closing zero.
	maxSocketPath = 103

	// idLength is that of a UUID.
	idLength = 36
)

// Open returns a driver. It starts and changes no machine. That QEMU is missing
// is for Ready to say; Open fails where Options cannot be: the folder too deep
// for the machines' sockets, or a bridge insisted on that cannot be had.
func Open(o Options) (*Driver, error) {
	longest := maxSocketPath - len(filepath.Join("/", qmpSocket)) - idLength - len("/")
	if len(o.MachinesDir) > longest {
		return nil, fmt.Errorf("the machines' folder %s is %d bytes long, and for the sockets in it %d is the longest possible; choose a shorter one with -data",
			o.MachinesDir, len(o.MachinesDir), longest)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	networks, err := network.Open(network.Config{Dir: filepath.Join(o.Dir, "net"), Name: o.Dir, Log: log})
	if err != nil {
		return nil, fmt.Errorf("opening the networks: %w", err)
	}
	wire, err := chooseWire(o, networks)
	if err != nil {
		return nil, err
	}
	name := o.QEMU
	if name == "" {
		name = defaultBinary
	}
	return &Driver{
		log:      log,
		binaries: binaries{name: name},
		networks: networks,
		wire:     wire,
		starting: map[string]int{},
	}, nil
}

func chooseWire(o Options, networks *network.Manager) (wire, error) {
	user := &userNet{ports: []int{22}}
	for _, port := range o.Forward {
		if port != 22 {
			user.ports = append(user.ports, port)
		}
	}
	why := networks.Available(network.NAT)
	switch o.Network {
	case "user":
		user.why = "the daemon was told so"
		return user, nil
	case "", "auto":
		if why == nil {
			return bridge{networks}, nil
		}
		user.why = why.Error()
		return user, nil
	case "bridge":
		if why != nil {
			return nil, fmt.Errorf("there can be no bridge for machines: %w", why)
		}
		return bridge{networks}, nil
	default:
		return nil, fmt.Errorf("network %q is not one of auto, user and bridge", o.Network)
	}
}

// Close removes the driver's bridges where no machine is plugged in. Machines
// go on running.
func (d *Driver) Close() error { return d.networks.Close() }

// Limits are those of QEMU's pc and of the host's memory.
func (d *Driver) Limits() vm.Limits { return vm.Limits{CPUs: 255, Memory: hostMemory()} }

// Network says whether machines can be attached to networks of type t.
func (d *Driver) Network(t vm.NetworkType) error { return d.wire.offers(t) }

// Ready looks for QEMU anew, so that it may be installed while the daemon runs.
func (d *Driver) Ready(ctx context.Context) error {
	_, err := d.binaries.find(ctx)
	return err
}

// Describe tells what machines run on: QEMU's "version" and "path" or, under
// "missing", why there is none; "acceleration" and "network", each with its
// reason.
func (d *Driver) Describe(ctx context.Context) map[string]string {
	facts := map[string]string{}
	var lack *vm.Error
	switch qemu, err := d.binaries.find(ctx); {
	case errors.As(err, &lack):
		facts["missing"] = lack.Message
	case err != nil:
		facts["missing"] = err.Error()
	default:
		facts["version"], facts["path"] = qemu.version, qemu.path
	}
	accel := probeAcceleration()
	facts["acceleration"] = accel.name + ": " + accel.why
	facts["network"] = d.wire.name()
	if user, is := d.wire.(*userNet); is {
		facts["network"] += ": " + user.why
	}
	return facts
}
