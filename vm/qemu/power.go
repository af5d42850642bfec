package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

const (
	// suspendedFile says that it was a client who stopped the machine.
	suspendedFile = "suspended"

	// switchedOffFile exists if a client switched the machine off.
	switchedOffFile = "switched-off"

	// quitTimeout is how long QEMU may take to hear that it is to end, to write
	// its disks' last blocks, and to end. One that takes longer is killed.
	quitTimeout = 10 * time.Second
)

// Power does what the machine's buttons do.
//
// A suspended machine is one whose processors are stopped: it keeps its memory
// on the host, and goes on within milliseconds. QEMU could write its memory
// down and end, but not with every device that images have (it refuses NVMe),
// nor where its sandbox forbids the helper that would write. So a suspended
// machine outlives the daemon, like one that runs, but not the host's restart,
// after which it is off.
func (d *Driver) Power(ctx context.Context, m vm.Machine, a vm.Action) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	pid, err := process.Holder(m.Dir)
	if err != nil {
		return unreadable(m, process.PIDFile, err)
	}
	if pid == 0 {
		return d.powerWithoutProcess(m, a)
	}
	switch a {
	case vm.ActionOff:
		err = d.quit(ctx, m, pid)
	case vm.ActionShutdown:
		err = d.shutDown(ctx, m)
	case vm.ActionReset:
		err = d.reset(ctx, m)
	case vm.ActionSuspend:
		err = d.suspend(ctx, m)
	case vm.ActionResume:
		err = d.resume(ctx, m)
	default:
		return fmt.Errorf("there is no power action %q for QEMU", a)
	}
	if err != nil && !process.Holds(m.Dir, pid) && (a == vm.ActionOff || a == vm.ActionShutdown) {
		return nil // it ended by itself meanwhile
	}
	return err
}

// powerWithout is what becomes of an action on a machine without a process.
func (d *Driver) powerWithoutProcess(m vm.Machine, a vm.Action) error {
	if a == vm.ActionOff || a == vm.ActionShutdown {
		return nil
	}
	return &vm.Error{Code: vm.CodePower, Message: fmt.Sprintf("machine %s is off, which does not allow %s", m.ID, a)}
}

// quit lets QEMU end by itself, so that its disks are whole, and kills it where
// it does not.
func (d *Driver) quit(ctx context.Context, m vm.Machine, pid int) error {
	waiting, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	// An error says nothing: QEMU hangs up as it ends, and otherwise it is killed.
	asked := d.withMonitor(waiting, m.Dir, func(q *qmp.Monitor) error {
		d.noteSwitchedOff(m)
		return q.Ask("quit", nil)
	})
	if process.Wait(waiting, "QEMU's end", func() bool { return !process.Holds(m.Dir, pid) }) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	d.log.Warn("QEMU does not end by itself; killing it", "vm", m.ID, "err", asked)
	d.noteSwitchedOff(m)
	return process.Kill(ctx, m.Dir)
}

// shutDown asks the guest's agent, which tells whether it will, or else presses
// the power button.
func (d *Driver) shutDown(ctx context.Context, m vm.Machine) error {
	live := liveState{}
	if err := d.withMonitor(ctx, m.Dir, live.ask); err != nil {
		return err
	}
	if live.agentOpen {
		err := qmp.ShutDown(ctx, filepath.Join(m.Dir, agentSocket))
		if err == nil {
			return nil
		}
		d.log.Info("the guest's agent does not shut the machine down; pressing its power button", "vm", m.ID, "err", err)
	}
	return d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return q.Ask("system_powerdown", nil) })
}

// reset resets the machine, and lets it run where a fault had stopped it. The
// sign of life that its guest gave before counts no more.
func (d *Driver) reset(ctx context.Context, m vm.Machine) error {
	defer d.ready.Delete(m.Dir)
	return d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error {
		if err := q.Ask("system_reset", nil); err != nil {
			return err
		}
		return q.Ask("cont", nil)
	})
}

// suspend writes down first who stopped the machine: one that is interrupted
// in between runs on, and Inspect says so.
func (d *Driver) suspend(ctx context.Context, m vm.Machine) error {
	if err := writeJSON(filepath.Join(m.Dir, suspendedFile), struct{}{}); err != nil {
		return disk.FullError(err)
	}
	return d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return q.Ask("stop", nil) })
}

func (d *Driver) resume(ctx context.Context, m vm.Machine) error {
	err := d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error {
		var status struct{ Status string }
		if err := q.Ask("query-status", &status); err != nil {
			return err
		}
		if status.Status == "suspended" { // its guest put it to sleep
			return q.Ask("system_wakeup", nil)
		}
		return q.Ask("cont", nil)
	})
	if err != nil {
		return err
	}
	return forgetSuspension(m.Dir)
}

func forgetSuspension(dir string) error {
	if err := os.Remove(filepath.Join(dir, suspendedFile)); err != nil && !missing(err) {
		return err
	}
	return nil
}

// wasSuspended tells whether a client stopped the machine.
func wasSuspended(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, suspendedFile))
	return err == nil
}

// noteSwitchedOff writes down that a client switched the machine off.
func (d *Driver) noteSwitchedOff(m vm.Machine) {
	if err := writeJSON(filepath.Join(m.Dir, switchedOffFile), struct{}{}); err != nil {
		d.log.Warn("cannot write down that a client switched the machine off", "vm", m.ID, "err", err)
	}
}

func forgetSwitchedOff(dir string) error {
	if err := os.Remove(filepath.Join(dir, switchedOffFile)); err != nil && !missing(err) {
		return err
	}
	return nil
}
