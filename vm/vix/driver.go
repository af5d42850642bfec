//go:build vix && cgo && !windows

package vix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

// Supported reports whether this binary can drive VMware at all.
func Supported() bool { return true }

// Driver drives VMware through one connection. Its methods may be called at
// once from many goroutines.
type Driver struct {
	Options
	path string // of VMware's library
	host *govix.Host

	calls chan struct{} // a place for each call under way
	waits chan struct{} // likewise for waits for tools

	mu       sync.Mutex // guards what follows; never held across a call
	machines map[string]*machine
	closed   bool
}

var _ vm.Driver = (*Driver)(nil)

// Open opens VMware's library and connects to VMware. Where either is not to
// be had the error says what was tried, and is an *vm.Error of
// CodeHypervisorUnavailable. Whoever opens a Driver closes it. A process can
// open one library only; several Drivers may share it.
func Open(o Options) (*Driver, error) { return openOn(runtime.GOOS, o) }

func openOn(goos string, o Options) (*Driver, error) {
	o.Deadlines = o.Deadlines.withDefaults()
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Leases == nil {
		o.Leases = leaseFiles()
	}
	path, err := load(o.Library, goos)
	if err != nil {
		return nil, &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: err.Error()}
	}
	d := &Driver{
		Options: o, path: path,
		calls: make(chan struct{}, callsAtOnce), waits: make(chan struct{}, waitsAtOnce),
		machines: make(map[string]*machine),
	}
	if err := d.connect(goos); err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(o.Dir, 0o755), d.clearHalfMade()); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the folder of the clones' bases: %w", err), d.Close())
	}
	d.sweep(context.Background())
	return d, nil
}

// connect makes the one connection. More of them would add up to VMware's
// limit on connections to a host.
func (d *Driver) connect(goos string) error {
	err := d.connectWith(d.HostOptions)
	if isCode(err, codeLicence) && d.HostOptions == 0 && goos == "darwin" {
		if d.connectWith(hostOptionVmrun) == nil {
			return nil
		}
	}
	return err
}

// hostOptionVmrun is no documented option. VMware's vmrun sets it on macOS.
const hostOptionVmrun = 0x200

func (d *Driver) connectWith(options int) error {
	hosts := make(chan *govix.Host, 1)
	err := d.call(context.Background(), "connect to VMware", d.Deadlines.Connect, func() error {
		host, err := govix.Connect(govix.ConnectConfig{Provider: govix.VMWARE_WORKSTATION, Options: govix.HostOption(options)})
		mendSignals() // VMware's wrapper library loads the other one just now
		hosts <- host
		return err
	})
	if err != nil {
		message := err.Error()
		if e, ok := errors.AsType[*vm.Error](err); ok {
			message = e.Message
		}
		return &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: d.path + " was opened, but " + message, Err: err}
	}
	d.host = <-hosts
	return nil
}

// Close ends the connection to VMware. Machines keep running. Calls under way
// get the time that a look at a machine may take; where one does not end, the
// connection is left to the end of the process.
func (d *Driver) Close() error {
	d.mu.Lock()
	again := d.closed
	d.closed = true
	d.mu.Unlock()
	if again {
		return nil
	}
	timer := time.NewTimer(d.Deadlines.Look + d.Deadlines.Tools)
	defer timer.Stop()
	for range callsAtOnce + waitsAtOnce {
		select {
		case d.calls <- struct{}{}:
		case d.waits <- struct{}{}:
		case <-timer.C:
			d.Log.Warn("VMware has not answered all calls; leaving without a goodbye")
			return nil
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.machines {
		if m.vm != nil {
			release(m.handle)
			m.vm = nil
		}
	}
	d.host.Disconnect()
	return nil
}

// Limits implements [vm.Driver]. VMware gives a machine no more processors than
// the host has, but for two, which every host may give.
func (d *Driver) Limits() vm.Limits {
	return vm.Limits{CPUs: max(2, runtime.NumCPU()), Memory: hostMemory()}
}

// Network implements [vm.Driver]: VMware has a network of each type.
func (d *Driver) Network(vm.NetworkType) error { return nil }

// Ready implements [vm.Driver].
func (d *Driver) Ready(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed()
	}
	if len(d.calls) == cap(d.calls) {
		return &vm.Error{
			Code:    vm.CodeHypervisorUnavailable,
			Message: fmt.Sprintf("VMware has not answered %d calls; see whether it waits for an answer in a dialog, and restart the daemon", callsAtOnce),
		}
	}
	return nil
}

func errClosed() error {
	return &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: "the connection to VMware is closed"}
}

// Describe implements [vm.Driver].
func (d *Driver) Describe(context.Context) map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return map[string]string{
		"library":         d.path,
		"networks":        "bridged nat hostonly",
		"calls_under_way": strconv.Itoa(len(d.calls)),
		"machines_open":   strconv.Itoa(len(d.machines)),
	}
}
