package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

const (
	// startTimeout bounds how long a QEMU takes to answer. It takes 0.1 seconds
	// on an idle host; the rest is for busy hosts.
	startTimeout = 30 * time.Second

	// startTries bounds how often Start chooses ports, because another program
	// can take a port first.
	startTries = 3
)

// Start runs the machine's QEMU and returns once its monitor answers.
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	unlock, err := lockToStart(ctx, d, m)
	if err != nil {
		return err
	}
	defer unlock()
	return startLocked(ctx, d, m)
}

// lockToStart locks the machine, and marks it as one that is being started until the lock is released.
func lockToStart(ctx context.Context, d *Driver, m vm.Machine) (unlock func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	started := d.starting.add(m.Dir)
	release, err := d.changing.Lock(ctx, m.Dir)
	if err != nil {
		started()
		return nil, err
	}
	return func() { release(); started() }, nil
}

// startLocked is Start for a caller that holds the machine's lock.
func startLocked(ctx context.Context, d *Driver, m vm.Machine) error {
	clone, err := readConfig(m.Dir)
	if err != nil {
		return unreadable(m, machineFile, err)
	}
	if clone.Template != nil && !clone.Template.Loaded {
		if started, err := d.memory.startOrConvert(ctx, m, &clone); started || err != nil {
			return err
		}
	}
	if runs, err := d.adopt(ctx, m); runs || err != nil {
		if runs && clone.Template != nil {
			d.memory.setClock(ctx, m, *clone.Template) // the call that started it may have been interrupted before
		}
		return err
	}
	if clone.Template != nil {
		if err := becomeOrdinary(m, &clone); err != nil {
			return disk.FullError(err)
		}
	}
	for try := 1; ; try++ {
		err := launch(ctx, d, m, clone)
		var failed *disk.CommandError
		if err == nil || !errors.As(err, &failed) || ctx.Err() != nil {
			return err
		}
		// The QEMU of an interrupted Start may have taken the lock first.
		if runs, err := d.adopt(ctx, m); runs || err != nil {
			return err
		}
		if try == startTries || !portTaken(failed.Stderr) {
			return startError(failed)
		}
	}
}

// adopt waits for the answer of a QEMU that an earlier call started, and reports
// whether there is one that runs. If the guest has switched the machine off, its
// QEMU may take a while to end. Such a machine does not run, and adopt ends it.
func (d *Driver) adopt(ctx context.Context, m vm.Machine) (runs bool, err error) {
	process.AwaitLock(ctx, m.Dir, startTimeout)
	pid, err := process.Holder(m.Dir)
	if err != nil || pid == 0 {
		return false, err
	}
	waiting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var live liveState
	answered := false
	err = process.Wait(waiting, "the monitor of QEMU", func() bool {
		answered = d.withMonitor(waiting, m.Dir, live.ask) == nil
		return answered || !process.Holds(m.Dir, pid)
	})
	switch {
	case err != nil && ctx.Err() == nil:
		return false, notAnswering(m, pid, err)
	case err == nil && answered && live.power == vm.PoweredOff:
		return false, d.quit(ctx, m, pid)
	}
	return answered, err
}

// launch starts QEMU once. If QEMU ended and said why, the error is a
// *disk.CommandError.
func launch(ctx context.Context, d *Driver, m vm.Machine, clone cloneConfig) error {
	process.AwaitSupervisor(ctx, m.Dir)
	command, err := d.prepare(ctx, m, clone)
	if err != nil {
		return err
	}
	return spawn(ctx, d, m, command)
}

// spawn runs QEMU and returns once its monitor answers. It closes the command's
// files.
func spawn(ctx context.Context, d *Driver, m vm.Machine, command process.Command) error {
	defer command.Close() // if it does not start
	// The machine may have ended while it was suspended.
	if err := errors.Join(forgetSuspension(m.Dir), forgetSwitchedOff(m.Dir)); err != nil {
		return err
	}
	ended, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ended.Close()
	err = errors.Join(process.Spawn(command, w), command.Close())
	if err == nil {
		err = awaitStart(ctx, d, m, ended)
	}
	if err == nil {
		return nil
	}
	var failed *disk.CommandError
	if errors.As(err, &failed) && len(tpmWords(m.Dir)) > 0 {
		failed.Stderr += tpmWords(m.Dir)
	}
	return errors.Join(disk.FullError(err), endFailedStart(m, ended, d.users))
}

// awaitStart returns once the monitor answers.
func awaitStart(ctx context.Context, d *Driver, m vm.Machine, ended *os.File) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("QEMU does not answer after %v: %w", startTimeout, context.DeadlineExceeded))
	defer cancel()
	for {
		if over, err := process.HasEnded(ended); err != nil {
			return err
		} else if over {
			return startEnded(lastEnding(m.Dir))
		}
		if d.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return q.Ask("query-status", nil) }) == nil {
			return nil
		}
		if ctx.Err() != nil {
			noteSwitchedOff(m, d.log) // launch kills it
			return fmt.Errorf("starting QEMU: %w", context.Cause(ctx))
		}
	}
}

// endFailedStart kills a QEMU that did not start. It finds one that does not hold
// its lock yet by its command line.
func endFailedStart(m vm.Machine, ended *os.File, u *users) error {
	ctx, cancel := context.WithTimeout(context.Background(), process.KillTimeout)
	defer cancel()
	for {
		if over, err := process.HasEnded(ended); over || err != nil {
			return errors.Join(err, process.EndBeside(ctx, m.Dir))
		}
		if err := errors.Join(process.Kill(ctx, m.Dir), process.KillOrphans(ctx, m.ID), u.kill(ctx, m)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("ending a QEMU that did not start: %w", err)
		}
	}
}

// startEnded returns the error for a QEMU that ended before its monitor answered:
// nil if its guest has already shut down, a *disk.CommandError if QEMU said why it
// cannot start, and otherwise an error that wraps [vm.ErrDied].
func startEnded(e process.Ending) error {
	switch {
	case !e.Died:
		return nil
	case e.Explained:
		return &disk.CommandError{What: "starting QEMU", Stderr: e.Stderr, Err: errors.New("it ended")}
	}
	return &vm.Error{Code: vm.CodeHypervisor, Message: "the machine did not start: " + e.String(), Err: vm.ErrDied}
}

// startError returns the client's error for a QEMU that could not start.
func startError(failed *disk.CommandError) error {
	err := disk.FullError(failed)
	var full *vm.Error
	if errors.As(err, &full) {
		return err
	}
	return &vm.Error{Code: vm.CodeHypervisor, Message: "QEMU does not start: " + failed.Stderr, Err: failed}
}
