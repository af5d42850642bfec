//go:build vix && cgo

package vix

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// refusalTime is how long to wait for a guest's refusal to shut down. If the guest does not refuse, VMware answers only
// when the machine is off, which may be never.
const refusalTime = 2 * time.Second

var _ vm.Powerer = (*Driver)(nil)

// Power implements [vm.Powerer].
func (d *Driver) Power(ctx context.Context, m vm.Machine, a vm.Action) error {
	if a == vm.ActionShutdown {
		return d.shutDown(ctx, m)
	}
	ref, err := d.vms.acquire(ctx, vmware.VMXPath(m), d.deadlines.Stop)
	if err != nil {
		return err
	}
	defer ref.Release()
	switch a {
	case vm.ActionOff:
		err = ref.forceOff(ctx)
	case vm.ActionSuspend:
		err = ref.suspend(ctx)
	case vm.ActionReset:
		return ref.reset(ctx)
	case vm.ActionResume:
		return ref.powerOn(ctx, m.LaunchGUI)
	default:
		return fmt.Errorf("VMware has no power action %q", a)
	}
	if err != nil {
		return err
	}
	return d.locks.Await(ctx, m, d.deadlines.Unlock) // otherwise the next start would find the machine locked
}

// shutDown asks the guest's tools. The call lasts until the machine is off and cannot be cancelled, so it opens the
// machine a second time instead of acquiring it: the machine can be used meanwhile.
func (d *Driver) shutDown(ctx context.Context, m vm.Machine) error {
	var asked atomic.Bool
	err := d.conn.call(ctx, "ask the guest to shut down", refusalTime, func(s *session) error {
		v, h, err := openVMX(s.host, vmware.VMXPath(m))
		if err != nil {
			return err
		}
		defer releaseHandle(h)
		if running, err := v.IsRunning(); !running || err != nil {
			return err
		}
		asked.Store(true)
		return v.PowerOff(govix.VMPOWEROP_FROM_GUEST)
	})
	switch {
	case isCode(err, vmware.CodeNotRunning):
		return nil
	case asked.Load() && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return nil
	}
	return err
}

// powerOn starts or resumes the machine, unless it runs.
func (r *vmRef) powerOn(ctx context.Context, gui bool) error {
	options := govix.VMPOWEROP_NORMAL
	if gui {
		options = govix.VMPOWEROP_LAUNCH_GUI
	}
	conn := r.vms.conn
	return r.call(ctx, "start the machine", conn.deadlines.Start, func() error {
		if running, err := r.vm.IsRunning(); running || err != nil {
			return err
		}
		r.tools, r.address = nil, nil
		if err := r.vm.PowerOn(options); err != nil && !isCode(err, vmware.CodeRunning) {
			return err
		}
		r.tools = conn.waitForTools(r.path)
		return nil
	})
}

// powerOff powers the machine off without asking the guest, unless it is off or suspended.
func (r *vmRef) powerOff(ctx context.Context) error {
	return r.call(ctx, "power the machine off", r.vms.conn.deadlines.Stop, func() error {
		bits, err := r.vm.PowerState()
		if err != nil {
			return err
		}
		if p := powerOf(bits); p == vm.PoweredOff || p == vm.Suspended {
			return nil
		}
		if err := r.vm.PowerOff(govix.VMPOWEROP_NORMAL); err != nil && !isCode(err, vmware.CodeNotRunning) {
			return err
		}
		return nil
	})
}

// forceOff is [vmRef.powerOff] for suspended machines too. VMware cannot power off a suspended machine, so forceOff
// resumes it first.
func (r *vmRef) forceOff(ctx context.Context) error {
	suspended := false
	err := r.call(ctx, "read the machine's state", r.vms.conn.deadlines.Read, func() error {
		bits, err := r.vm.PowerState()
		suspended = powerOf(bits) == vm.Suspended
		return err
	})
	if err == nil && suspended {
		err = r.powerOn(ctx, false)
	}
	if err != nil {
		return err
	}
	return r.powerOff(ctx)
}

func (r *vmRef) suspend(ctx context.Context) error {
	return r.call(ctx, "suspend the machine", r.vms.conn.deadlines.Stop, func() error {
		bits, err := r.vm.PowerState()
		if err != nil || powerOf(bits) == vm.Suspended {
			return err
		}
		r.tools, r.address = nil, nil
		return r.vm.Suspend()
	})
}

func (r *vmRef) reset(ctx context.Context) error {
	return r.call(ctx, "reset the machine", r.vms.conn.deadlines.Stop, func() error {
		r.tools, r.address = nil, nil
		return r.vm.Reset(govix.VMPOWEROP_NORMAL)
	})
}
