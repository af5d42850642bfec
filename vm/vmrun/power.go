package vmrun

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

const (
	// refusalTime is how long to wait for a guest's refusal to shut down. If the guest does not refuse, vmrun answers
	// only when the machine is off, which may be never.
	refusalTime = 2 * time.Second

	// maxScreenshot bounds a screenshot, in bytes.
	maxScreenshot = 64 << 20
)

var (
	_ vm.Powerer       = (*Driver)(nil)
	_ vm.Screenshotter = (*Driver)(nil)
)

// Power implements [vm.Powerer].
func (d *Driver) Power(ctx context.Context, m vm.Machine, a vm.Action) error {
	acquired, err := d.acquire(ctx, vmware.VMXPath(m))
	if err != nil {
		return err
	}
	defer acquired.Release()
	switch a {
	case vm.ActionShutdown:
		return d.shutDown(ctx, m)
	case vm.ActionReset:
		d.guests.forget(m)
		_, err := d.command.call(ctx, "reset the machine", d.deadlines.Stop, "reset", vmware.VMXPath(m), "hard")
		return err
	case vm.ActionResume:
		return d.powerOn(ctx, m, m.LaunchGUI)
	case vm.ActionOff:
		if isSuspended(m) { // VMware cannot power off a suspended machine
			if err := d.powerOn(ctx, m, false); err != nil {
				return err
			}
		}
		err = d.powerOff(ctx, m)
	case vm.ActionSuspend:
		err = d.suspend(ctx, m)
	default:
		return fmt.Errorf("VMware has no power action %q", a)
	}
	if err != nil {
		return err
	}
	return d.locks.Await(ctx, m, d.deadlines.Unlock) // otherwise the next start would find the machine locked
}

// powerOff powers the machine off without asking the guest, unless it is off or suspended.
func (d *Driver) powerOff(ctx context.Context, m vm.Machine) error {
	if running, err := d.isRunning(ctx, m); !running || err != nil {
		return err
	}
	d.guests.forget(m)
	_, err := d.command.call(ctx, "power the machine off", d.deadlines.Stop, "stop", vmware.VMXPath(m), "hard")
	return d.unlessOff(ctx, m, err)
}

func (d *Driver) suspend(ctx context.Context, m vm.Machine) error {
	if running, err := d.isRunning(ctx, m); err != nil || !running && isSuspended(m) {
		return err
	}
	d.guests.forget(m)
	_, err := d.command.call(ctx, "suspend the machine", d.deadlines.Stop, "suspend", vmware.VMXPath(m), "hard")
	return err
}

// unlessOff returns err, or nil if the machine is off all the same.
func (d *Driver) unlessOff(ctx context.Context, m vm.Machine, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if running, e := d.isRunning(ctx, m); e == nil && !running {
		return nil
	}
	return err
}

// shutDown asks the guest's tools. The call lasts until the machine is off, so it continues in the background if the
// guest does not refuse.
func (d *Driver) shutDown(ctx context.Context, m vm.Machine) error {
	if running, err := d.isRunning(ctx, m); !running || err != nil {
		return err
	}
	answer := d.guests.background(func(background context.Context) error {
		_, err := d.command.call(background, "ask the guest to shut down", d.deadlines.Stop, "stop", vmware.VMXPath(m), "soft")
		return err
	})
	timer := time.NewTimer(refusalTime)
	defer timer.Stop()
	select {
	case err := <-answer:
		if vmware.IsCode(err, vmware.CodeNotRunning) {
			return nil
		}
		return err
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for VMware to ask the guest to shut down: %w", ctx.Err())
	}
}

// isSuspended reports whether the machine, which does not run, is suspended: VMware keeps its memory in a file.
func isSuspended(m vm.Machine) bool {
	entries, _ := os.ReadDir(m.Dir)
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".vmss" {
			return true
		}
	}
	return false
}

// Screenshot implements [vm.Screenshotter].
func (d *Driver) Screenshot(ctx context.Context, m vm.Machine) ([]byte, error) {
	running, err := d.isRunning(ctx, m)
	if err != nil {
		return nil, vmware.Unreadable(err)
	}
	if !running {
		return nil, &vm.Error{Code: vm.CodePower, Message: "machine " + m.ID + " does not run, so it has no screen"}
	}
	dir, err := os.MkdirTemp("", "osx-builder")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "screen.png")
	if _, err := d.command.call(ctx, "read the machine's screen", d.deadlines.Read, "captureScreen", vmware.VMXPath(m), file); err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 || info.Size() > maxScreenshot {
		return nil, fmt.Errorf("VMware's screenshot has %d bytes, want 1 to %d", info.Size(), maxScreenshot)
	}
	return os.ReadFile(file)
}
