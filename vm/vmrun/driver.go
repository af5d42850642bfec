package vmrun

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/keyedmutex"
	"osx-builder/vm/vmware"
)

// Driver drives VMware by vmrun. Its methods may be called concurrently.
type Driver struct {
	log       *slog.Logger
	deadlines vmware.Deadlines
	leases    vmware.Leases

	command *command
	bases   *vmware.Bases
	locks   *vmware.Locks
	guests  *guests
	paths   keyedmutex.Mutex // by the path of a .vmx
}

var _ vm.Driver = (*Driver)(nil)

// Open finds vmrun and checks that VMware answers it. If either fails, the error says what was tried and is a
// [*vm.Error] with [vm.CodeHypervisorUnavailable]. The caller closes the Driver.
func Open(o Options) (*Driver, error) {
	o.Deadlines = o.Deadlines.WithDefaults()
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Leases == nil {
		o.Leases = vmware.LeaseFiles()
	}
	program, err := find(o.Program)
	if err != nil {
		return nil, err
	}
	c := &command{program: program, deadlines: o.Deadlines, calls: make(chan struct{}, maxCalls)}
	d := &Driver{
		log: o.Log, deadlines: o.Deadlines, leases: o.Leases, command: c,
		locks: vmware.NewLocks(o.HostIDs, o.Log), guests: newGuests(c),
	}
	d.bases = &vmware.Bases{Dir: o.Dir, Gold: o.Gold, Log: o.Log, Locks: d.locks, Acquire: d.acquire}
	if err := d.Ready(context.Background()); err != nil {
		return nil, err
	}
	return d, d.bases.Open(context.Background())
}

// Close ends the calls in the background. Machines keep running.
func (d *Driver) Close() error {
	d.guests.close()
	return nil
}

// released is the right to use a machine.
type released func()

// Release implements [vmware.Acquired].
func (r released) Release() { r() }

// acquire waits until no other goroutine changes the machine whose .vmx is at path.
func (d *Driver) acquire(ctx context.Context, path string) (vmware.Acquired, error) {
	unlock, err := d.paths.Lock(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("waiting for another call of the machine: %w", err)
	}
	return released(unlock), nil
}

// Limits implements [vm.Driver]. VMware gives a machine at most as many processors as the host has, but two on any
// host.
func (d *Driver) Limits() vm.Limits {
	return vm.Limits{CPUs: max(2, runtime.NumCPU()), Memory: vmware.HostMemory(), HostCPUs: runtime.NumCPU()}
}

// Network implements [vm.Driver]. VMware has a network of each type.
func (d *Driver) Network(vm.NetworkType) error { return nil }

// Ready implements [vm.Driver].
func (d *Driver) Ready(ctx context.Context) error {
	_, err := d.running(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return &vm.Error{
		Code: vm.CodeHypervisorUnavailable, Message: fmt.Sprintf("%s does not answer: %s", d.command.program, message(err)), Err: err,
	}
}

// Sweep implements [vm.Driver]: it removes what the bases hold for machines that are not known.
func (d *Driver) Sweep(ctx context.Context, known func(id string) bool) error {
	return d.bases.Sweep(ctx, known)
}

// Describe implements [vm.Driver].
func (d *Driver) Describe(context.Context) map[string]string {
	return map[string]string{
		"program":         d.command.program,
		"networks":        "bridged nat hostonly",
		"calls_under_way": strconv.Itoa(len(d.command.calls)),
	}
}

// running returns the paths of the .vmx files of all running machines.
func (d *Driver) running(ctx context.Context) ([]string, error) {
	out, err := d.command.call(ctx, "list the running machines", d.deadlines.Read, "list")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(out, runningTitle) {
		return nil, unavailable("%s is not VMware's vmrun: it does not list the running machines", d.command.program)
	}
	return lines(out, runningTitle), nil
}

// runningTitle is the title of the list of running machines.
const runningTitle = "Total running VMs:"

// isRunning reports whether the machine runs.
func (d *Driver) isRunning(ctx context.Context, m vm.Machine) (bool, error) {
	all, err := d.running(ctx)
	if err != nil {
		return false, err
	}
	want := realPath(vmware.VMXPath(m))
	return slices.ContainsFunc(all, func(path string) bool { return samePath(realPath(path), want) }), nil
}

// realPath returns path without symbolic links, as VMware lists it.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// samePath compares paths like the usual file systems of the host.
func samePath(a, b string) bool {
	if runtime.GOOS == "linux" {
		return a == b
	}
	return strings.EqualFold(a, b)
}
