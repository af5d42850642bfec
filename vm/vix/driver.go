//go:build vix && cgo

package vix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// Supported reports whether this binary can drive VMware.
func Supported() bool { return true }

// Driver drives VMware. Its methods may be called concurrently.
type Driver struct {
	log       *slog.Logger
	deadlines vmware.Deadlines
	leases    vmware.Leases

	conn  *connection
	vms   *openVMs
	bases *vmware.Bases
	locks *vmware.Locks
}

var _ vm.Driver = (*Driver)(nil)

// Open opens VMware's library and connects to VMware. If either fails, the error says what was tried and is a
// [*vm.Error] with [vm.CodeHypervisorUnavailable]. The caller closes the Driver. A process can open only one library,
// which several Drivers can share.
func Open(o Options) (*Driver, error) { return openOn(runtime.GOOS, o) }

func openOn(goos string, o Options) (*Driver, error) {
	o.Deadlines = o.Deadlines.WithDefaults()
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Leases == nil {
		o.Leases = vmware.LeaseFiles()
	}
	conn, err := connect(goos, o)
	if err != nil {
		return nil, err
	}
	vms := newOpenVMs(conn)
	d := &Driver{
		log: o.Log, deadlines: o.Deadlines, leases: o.Leases, conn: conn, vms: vms, locks: vmware.NewLocks(o.HostIDs, o.Log),
	}
	acquire := func(ctx context.Context, path string) (vmware.Acquired, error) {
		return vms.acquire(ctx, path, o.Deadlines.Clone)
	}
	d.bases = &vmware.Bases{Dir: o.Dir, Gold: o.Gold, Log: o.Log, Locks: d.locks, Acquire: acquire}
	if err := d.bases.Open(context.Background()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close ends the connection to VMware. Machines keep running. Close waits for running calls, but not longer than
// reading a machine's state may take. If a call does not end in time, the connection stays open until the process
// exits.
func (d *Driver) Close() error {
	if !d.vms.close() {
		return nil // closed before
	}
	if !d.conn.disconnect(d.vms.closeAll) {
		d.log.Warn("VMware has not finished all calls; exiting without disconnecting")
	}
	return nil
}

// Limits implements [vm.Driver]. VMware gives a machine at most as many processors as the host has, but two on any
// host.
func (d *Driver) Limits() vm.Limits {
	return vm.Limits{CPUs: max(2, runtime.NumCPU()), Memory: vmware.HostMemory(), HostCPUs: runtime.NumCPU()}
}

// Network implements [vm.Driver]. VMware has a network of each type.
func (d *Driver) Network(vm.NetworkType) error { return nil }

// Ready implements [vm.Driver].
func (d *Driver) Ready(context.Context) error {
	if d.vms.isClosed() {
		return errClosed()
	}
	if err := d.conn.sessions.err(); err != nil {
		return err
	}
	if d.conn.isBusy() {
		return &vm.Error{
			Code:    vm.CodeHypervisorUnavailable,
			Message: fmt.Sprintf("VMware has not finished %d calls; check whether it waits for an answer in a dialog, and restart the daemon", maxCalls),
		}
	}
	return nil
}

func errClosed() error {
	return &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: "the connection to VMware is closed"}
}

// Sweep implements [vm.Driver]: it removes what the bases hold for machines that are not known.
func (d *Driver) Sweep(ctx context.Context, known func(id string) bool) error {
	return d.bases.Sweep(ctx, known)
}

// Describe implements [vm.Driver].
func (d *Driver) Describe(context.Context) map[string]string {
	return map[string]string{
		"library":         d.conn.library,
		"networks":        "bridged nat hostonly",
		"calls_under_way": strconv.Itoa(len(d.conn.calls)),
		"machines_open":   strconv.Itoa(d.vms.count()),
	}
}
