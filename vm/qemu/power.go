package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

const (
	// suspendedFile exists if a client stopped the machine.
	suspendedFile = "suspended"

	// switchedOffFile exists if a client switched the machine off.
	switchedOffFile = "switched-off"

	// quitTimeout bounds how long QEMU takes to accept the command to end, to
	// write its disks' last blocks, and to end. Then it is killed.
	quitTimeout = 10 * time.Second
)

// Power changes the machine's power state.
//
// Suspending a machine stops its processors. It keeps its memory on the host and
// continues within milliseconds. QEMU cannot save every machine's memory to a
// file: it refuses NVMe, and its sandbox forbids the process that would write. So
// a suspended machine, like a running one, outlives the daemon but not a restart
// of the host, after which it is off.
func (d *Driver) Power(ctx context.Context, m vm.Machine, a vm.Action) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	unlock, err := d.changing.Lock(ctx, m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	pid, err := process.Holder(m.Dir)
	if err != nil {
		return unreadable(m, process.PIDFile, err)
	}
	if pid == 0 {
		return powerWithoutProcess(m, a)
	}
	ended, err := askUntilEnded(ctx, m.Dir, pid, func() error {
		switch a {
		case vm.ActionOff:
			return d.quit(ctx, m, pid)
		case vm.ActionShutdown:
			return d.shutDown(ctx, m)
		case vm.ActionReset:
			return d.reset(ctx, m, pid)
		case vm.ActionSuspend:
			return suspend(ctx, d, m)
		case vm.ActionResume:
			return resume(ctx, d, m)
		default:
			return fmt.Errorf("QEMU has no power action %q", a)
		}
	})
	var failed *vm.Error // the start that a reset of a machine from memory needs has an error of its own
	if ended && (a == vm.ActionOff || a == vm.ActionShutdown || qmp.HungUp(err) && !errors.As(err, &failed)) {
		return powerWithoutProcess(m, a)
	}
	return err
}

// askUntilEnded calls ask, which asks the process pid, and repeats it while QEMU hangs up: a
// QEMU that ends does so before its process is gone. It reports whether the process is gone
// although ask failed.
func askUntilEnded(ctx context.Context, dir string, pid int, ask func() error) (ended bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	_ = process.Wait(waiting, "QEMU's end", func() bool {
		err = ask()
		ended = err != nil && !process.Holds(dir, pid)
		return ended || !qmp.HungUp(err)
	})
	return ended, err
}

// powerWithoutProcess returns the result of an action on a machine that is off.
func powerWithoutProcess(m vm.Machine, a vm.Action) error {
	if a == vm.ActionOff || a == vm.ActionShutdown {
		return nil
	}
	return &vm.Error{Code: vm.CodePower, Message: fmt.Sprintf("machine %s is off, which does not allow %s", m.ID, a)}
}

// quit tells QEMU to end, so that it writes its disks' last blocks, and kills it
// if it does not.
func (d *Driver) quit(ctx context.Context, m vm.Machine, pid int) error {
	waiting, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	// An error does not matter: QEMU closes the connection when it ends, and if it
	// does not end, it is killed.
	asked := d.withMonitor(waiting, m.Dir, func(q *qmp.Monitor) error {
		noteSwitchedOff(m, d.log)
		return q.Ask("quit", nil)
	})
	if process.Wait(waiting, "QEMU's end", func() bool { return !process.Holds(m.Dir, pid) }) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	d.log.Warn("QEMU does not end by itself; killing it", "vm", m.ID, "err", asked)
	noteSwitchedOff(m, d.log)
	return process.Kill(ctx, m.Dir)
}

// shutDown asks the guest's agent to shut down. If there is no agent or it
// refuses, shutDown presses the power button.
func (d *Driver) shutDown(ctx context.Context, m vm.Machine) error {
	live := liveState{}
	if err := d.withMonitor(ctx, m.Dir, live.ask); err != nil {
		return err
	}
	if live.agentOpen {
		err := d.agents.ShutDown(ctx, filepath.Join(m.Dir, agentSocket))
		if err == nil {
			return nil
		}
		d.log.Info("the guest's agent does not shut the machine down; pressing its power button", "vm", m.ID, "err", err)
	}
	return d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return q.Ask("system_powerdown", nil) })
}

// reset resets the machine, and lets it run if a fault had stopped it. The guest
// must become ready again. A machine that runs from memory starts as an ordinary
// one, with its own identity.
func (d *Driver) reset(ctx context.Context, m vm.Machine, pid int) error {
	defer d.readiness.Forget(m.Dir)
	if clone, err := readConfig(m.Dir); err == nil && clone.Template != nil {
		if err := d.quit(ctx, m, pid); err != nil {
			return err
		}
		process.AwaitSupervisor(ctx, m.Dir)
		defer d.starting.add(m.Dir)()
		return startLocked(ctx, d, m)
	}
	return d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error {
		if err := q.Ask("system_reset", nil); err != nil {
			return err
		}
		return q.Ask("cont", nil)
	})
}

// suspend first writes down that a client stopped the machine. If it is
// interrupted before it stops the machine, the machine keeps running, and Inspect
// shows that.
func suspend(ctx context.Context, d *Driver, m vm.Machine) error {
	if err := writeJSON(filepath.Join(m.Dir, suspendedFile), struct{}{}); err != nil {
		return disk.FullError(err)
	}
	return d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return q.Ask("stop", nil) })
}

func resume(ctx context.Context, d *Driver, m vm.Machine) error {
	err := d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error {
		var status struct{ Status string }
		if err := q.Ask("query-status", &status); err != nil {
			return err
		}
		if status.Status == "suspended" { // the guest went to sleep
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

// wasSuspended reports whether a client stopped the machine.
func wasSuspended(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, suspendedFile))
	return err == nil
}

// noteSwitchedOff writes down that a client switched the machine off.
func noteSwitchedOff(m vm.Machine, log *slog.Logger) {
	if err := writeJSON(filepath.Join(m.Dir, switchedOffFile), struct{}{}); err != nil {
		log.Warn("cannot write down that a client switched the machine off", "vm", m.ID, "err", err)
	}
}

func forgetSwitchedOff(dir string) error {
	if err := os.Remove(filepath.Join(dir, switchedOffFile)); err != nil && !missing(err) {
		return err
	}
	return nil
}
