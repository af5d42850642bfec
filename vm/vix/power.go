//go:build vix && cgo && !windows

package vix

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

const (
	// refusalTime is how long a guest's refusal to shut down is waited for.
	// VMware itself answers only once the machine is off, be that never.
	refusalTime = 2 * time.Second

	// goodbyeTime is how long the process of a machine that has just been
	// switched off may still hold its lock.
	goodbyeTime = 3 * time.Second
)

var (
	_ vm.Powerer       = (*Driver)(nil)
	_ vm.Screenshotter = (*Driver)(nil)
)

// Power implements vm.Powerer.
func (d *Driver) Power(ctx context.Context, m vm.Machine, a vm.Action) error {
	if a == vm.ActionShutdown {
		return d.shutDown(ctx, m)
	}
	h, err := d.take(ctx, vmxPath(m), d.Deadlines.Stop)
	if err != nil {
		return err
	}
	defer h.drop()
	switch a {
	case vm.ActionOff:
		err = d.pullPlug(ctx, h)
	case vm.ActionSuspend:
		err = d.suspend(ctx, h)
	case vm.ActionReset:
		return d.reset(ctx, h)
	case vm.ActionResume:
		return d.powerOn(ctx, h, m.LaunchGUI)
	default:
		return fmt.Errorf("there is no power action %q for VMware", a)
	}
	if err != nil {
		return err
	}
	return d.awaitUnlocked(ctx, m) // else the next start would find it in use
}

// pullPlug switches the machine off. VMware does not switch off one that is
// suspended, so that is resumed first.
func (d *Driver) pullPlug(ctx context.Context, h *hold) error {
	suspended := false
	err := h.do(ctx, "tell the machine's state", d.Deadlines.Look, func() error {
		bits, err := h.vm.PowerState()
		suspended = power(bits) == vm.Suspended
		return err
	})
	if err == nil && suspended {
		err = d.powerOn(ctx, h, false)
	}
	if err != nil {
		return err
	}
	return d.powerOff(ctx, h)
}

func (d *Driver) suspend(ctx context.Context, h *hold) error {
	return h.do(ctx, "suspend the machine", d.Deadlines.Stop, func() error {
		bits, err := h.vm.PowerState()
		if err != nil || power(bits) == vm.Suspended {
			return err
		}
		h.tools = nil
		return h.vm.Suspend()
	})
}

func (d *Driver) reset(ctx context.Context, h *hold) error {
	return h.do(ctx, "reset the machine", d.Deadlines.Stop, func() error {
		h.tools = nil
		return h.vm.Reset(govix.VMPOWEROP_NORMAL)
	})
}

// shutDown asks the guest's tools. The call lasts until the machine is off and
// cannot be cancelled, so it takes no turn of the machine, which must stay of
// use meanwhile, but a reference of its own.
func (d *Driver) shutDown(ctx context.Context, m vm.Machine) error {
	var asked atomic.Bool
	err := d.call(ctx, "ask the guest to shut down", refusalTime, func() error {
		v, h, err := open(d.host, vmxPath(m))
		if err != nil {
			return err
		}
		defer release(h)
		if running, err := v.IsRunning(); !running || err != nil {
			return err
		}
		asked.Store(true)
		return v.PowerOff(govix.VMPOWEROP_FROM_GUEST)
	})
	switch {
	case isCode(err, codeNotRunning):
		return nil
	case asked.Load() && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return nil
	}
	return err
}

// unlockSoon waits until no process uses the machine in dir, for a short time,
// and removes the locks that none uses. It reports whether it is so.
func (d *Driver) unlockSoon(ctx context.Context, dir string) bool {
	ctx, cancel := context.WithTimeout(ctx, goodbyeTime)
	defer cancel()
	for {
		locks, err := locksIn(dir)
		if err == nil && (len(locks) == 0 || d.unlock(dir)) {
			return true
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return false
		}
	}
}
