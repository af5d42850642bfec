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
//	exit           locked as long as somebody waits for QEMU's end; then its exit status
//	suspended      there while a client has the machine suspended
//	switched-off   there once a client had the machine switched off
//	serial.log     what the guest wrote to its first serial port; all but its end is a hole
//	qemu.log       what QEMU itself complained of since the last start; likewise
package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
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
	Bridge      string       // the host's bridge that bridged machines are plugged into; "": there is none
	NATSubnet   string       // of the nat network's bridge, such as 10.20.30.0/24; "": a free one is chosen
	Isolate     bool         // machines on bridges of ours do not reach each other
	Gold        string       // absolute path of the folder with gold images; the driver owns "prepared" beside it. "" for images that are used as they are
	DiskReserve int64        // bytes of the disk that prepared images leave to the host
	QEMU        string       // name or path of QEMU; "" is qemu-system-x86_64
	Log         *slog.Logger // nil: nothing is logged
}

// Driver is the vm.Driver for QEMU. Its methods may be called at once.
type Driver struct {
	log      *slog.Logger
	machines string // folder that holds each Machine.Dir
	binaries binaries
	networks *network.Manager
	wires    wires
	rest     func() // ends what keeps networks right and logs short, and waits for it

	stable *stable

	monitors keyedMutex // by Machine.Dir
	queries  stateQueries
	agents   singleflight.Group // by Machine.Dir and process
	ready    sync.Map           // process whose guest gave a sign of life, by Machine.Dir

	mu       sync.Mutex
	starting map[string]int // calls of Start under way, by Machine.Dir; guarded by mu
}

var (
	_ vm.Driver        = (*Driver)(nil)
	_ vm.Consoler      = (*Driver)(nil)
	_ vm.Screenshotter = (*Driver)(nil)
	_ vm.Powerer       = (*Driver)(nil)
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
	networks, err := openNetworks(o, log)
	if err != nil {
		return nil, err
	}
	wires, err := chooseWires(o, networks)
	if err != nil {
		return nil, err
	}
	prepared, err := openStable(o.Gold, o.DiskReserve, log)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		log:      log,
		machines: o.MachinesDir,
		binaries: binaries{name: cmp.Or(o.QEMU, defaultBinary)},
		networks: networks,
		wires:    wires,
		stable:   prepared,
		starting: map[string]int{},
	}
	d.announce()
	keepers := []func(context.Context){d.keepLogs, d.logDeaths}
	if wires.bridges() {
		keepers = append(keepers, d.repair)
	}
	d.rest = keep(keepers...)
	return d, nil
}

// Limits are those of QEMU's pc and of the host's memory.
func (d *Driver) Limits() vm.Limits { return vm.Limits{CPUs: 255, Memory: hostMemory()} }

// Ready looks for QEMU anew, so that it may be installed while the daemon runs.
func (d *Driver) Ready(ctx context.Context) error {
	_, err := d.binaries.find(ctx)
	return err
}

// Describe tells what machines run on: QEMU's "version" and "path" or, under
// "missing", why there is none; "acceleration" and "network", what nat machines
// are plugged into, each with its reason; under "firewall" what may cut
// machines off.
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
	nat := d.wires[vm.NAT]
	facts["network"] = nat.name()
	if user, is := nat.(*userNet); is {
		facts["network"] += ": " + user.why
	}
	switch warnings, err := d.firewalls(); {
	case err != nil:
		facts["firewall"] = err.Error()
	case len(warnings) > 0:
		facts["firewall"] = strings.Join(warnings, "; ")
	}
	return facts
}
