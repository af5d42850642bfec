package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/qmp"
)

const (
	// startTimeout is how long a QEMU may take until it answers. It takes 0.1
	// seconds on an idle host, so this is for those that are overwhelmed.
	startTimeout = 30 * time.Second

	// startTries is how often ports are chosen anew when another program was
	// quicker to take one.
	startTries = 3

	// complaint bounds how much of what QEMU says goes into an error.
	maxStderr = 1 << 10
)

// launcher is the script that starts QEMU as nobody's child, so that it is not
// the daemon's to reap and outlives it. (QEMU's own -daemonize needs system
// calls that its sandbox is to forbid.) A shell waits for QEMU and writes its
// exit status to descriptor 4. Descriptor 3 tells the daemon when both have
// ended. %s is QEMU's command line. The shell gets the script by its standard
// input, so that no command line but QEMU's own is that of a machine.
const launcher = `{
%s </dev/null >/dev/null 2>` + qemuLog + ` 4>&- &
trap '' HUP INT TERM
wait $!
echo $? >&4
} >/dev/null 2>&1 &
`

// Start runs the machine's QEMU and returns once its monitor answers.
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	defer d.markStarting(m.Dir)()
	clone, err := readConfig(m.Dir)
	if err != nil {
		return unreadable(m, machineFile, err)
	}
	if runs, err := d.adopt(ctx, m); runs || err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := d.launch(ctx, m, clone)
		var failed *commandError
		if err == nil || !errors.As(err, &failed) || ctx.Err() != nil {
			return err
		}
		// A QEMU that an interrupted Start left behind can be quicker.
		if runs, err := d.adopt(ctx, m); runs || err != nil {
			return err
		}
		if try == startTries || !portTaken(failed.stderr) {
			return startError(failed)
		}
	}
}

// markStarting notes a Start under way and returns what takes the note back.
func (d *Driver) markStarting(dir string) (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starting[dir]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.starting[dir]--; d.starting[dir] == 0 {
			delete(d.starting, dir)
		}
	}
}

func (d *Driver) isStarting(dir string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.starting[dir] > 0
}

// adopt waits for the answer of a QEMU that an earlier call started. It says
// whether there is one that runs. One whose guest has switched the machine off
// may take a while to end, and is not taken for a machine that runs.
func (d *Driver) adopt(ctx context.Context, m vm.Machine) (runs bool, err error) {
	awaitLock(ctx, m.Dir)
	pid, err := holder(m.Dir)
	if err != nil || pid == 0 {
		return false, err
	}
	waiting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var live liveState
	answered := false
	err = wait(waiting, "the monitor of QEMU", func() bool {
		answered = d.withMonitor(waiting, m.Dir, live.ask) == nil
		return answered || !holds(m.Dir, pid)
	})
	switch {
	case err != nil && ctx.Err() == nil:
		return false, notAnswering(m, pid, err)
	case err == nil && answered && live.power == vm.PoweredOff:
		return false, d.quit(ctx, m, pid)
	}
	return answered, err
}

// answers says whether the machine's QEMU is up to its monitor.
func (d *Driver) answers(ctx context.Context, dir string) bool {
	return d.withMonitor(ctx, dir, func(q *qmp.Monitor) error { return q.Ask("query-status", nil) }) == nil
}

// launch starts QEMU once. A *commandError says that it ended, and what it
// said.
func (d *Driver) launch(ctx context.Context, m vm.Machine, clone cloneConfig) error {
	qemu, s, err := d.prepare(ctx, m, clone)
	if err != nil {
		return err
	}
	// The machine may have ended while it was suspended.
	if err := errors.Join(forgetSuspension(m.Dir), forgetSwitchedOff(m.Dir)); err != nil {
		return err
	}
	ended, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ended.Close()
	err = spawn(m.Dir, append([]string{qemu.path}, arguments(s)...), w)
	if err == nil {
		err = d.awaitStart(ctx, m, ended)
	}
	if err != nil {
		return errors.Join(diskFull(err), endFailedStart(m, ended))
	}
	return nil
}

// spawn runs argv in dir as a process of its own session. Until it has ended
// and its exit status is written down, w is kept open. The shell takes
// milliseconds; to cut it short would leave open whether there is a process.
func spawn(dir string, argv []string, w *os.File) error {
	defer w.Close()
	exit, err := newExitFile(dir)
	if err != nil {
		return diskFull(err)
	}
	defer exit.Close()
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-s")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(launcher, shellWords(argv)))
	cmd.Dir = dir
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{w, exit}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	if err := withoutAmbient(cmd.Run); err != nil {
		return fmt.Errorf("starting QEMU: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// shellWords quotes a command line for a shell.
func shellWords(argv []string) string {
	var words []string
	for _, a := range argv {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return strings.Join(words, " ")
}

// awaitStart returns once the monitor answers.
func (d *Driver) awaitStart(ctx context.Context, m vm.Machine, ended *os.File) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("QEMU does not answer after %v: %w", startTimeout, context.DeadlineExceeded))
	defer cancel()
	for {
		if over, err := hasEnded(ended); err != nil {
			return err
		} else if over {
			return startEnded(lastEnding(m.Dir))
		}
		if d.answers(ctx, m.Dir) {
			return nil
		}
		if ctx.Err() != nil {
			d.noteSwitchedOff(m) // whoever gives it up ends it
			return fmt.Errorf("starting QEMU: %w", context.Cause(ctx))
		}
	}
}

// hasEnded waits for pollPause whether the process ends.
func hasEnded(ended *os.File) (bool, error) {
	if err := ended.SetReadDeadline(time.Now().Add(pollPause)); err != nil {
		return false, err
	}
	_, err := ended.Read(make([]byte, 1))
	switch {
	case errors.Is(err, io.EOF):
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	default:
		return false, err
	}
}

// abandon ends a QEMU that did not come up, be it so early that it does not
// hold its lock yet.
func endFailedStart(m vm.Machine, ended *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), deathTimeout)
	defer cancel()
	for {
		if over, err := hasEnded(ended); over || err != nil {
			return err
		}
		if err := errors.Join(halt(ctx, m.Dir), haltOrphans(ctx, m.ID)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("ending a QEMU that did not start: %w", err)
		}
	}
}

// lastWords is the end of what QEMU wrote to its standard error.
func stderrTail(dir string) string {
	f, err := os.Open(filepath.Join(dir, qemuLog))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	_, _ = f.Seek(-maxStderr, io.SeekEnd) // of a shorter text, the whole
	text, err := io.ReadAll(io.LimitReader(f, maxStderr))
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(text)), "")
}

// startEnded is the error for a QEMU that ended before its monitor was asked:
// none if its guest was done by then, a *commandError if QEMU could not start
// and said why, and otherwise one that wraps vm.ErrDied.
func startEnded(e ending) error {
	switch {
	case !e.died:
		return nil
	case e.explained:
		return &commandError{what: "starting QEMU", stderr: e.stderr, err: errors.New("it ended")}
	}
	return &vm.Error{Code: vm.CodeHypervisor, Message: "the machine did not start: " + e.String(), Err: vm.ErrDied}
}

// startError tells the client why QEMU could not start.
func startError(failed *commandError) error {
	err := diskFull(failed)
	var full *vm.Error
	if errors.As(err, &full) {
		return err
	}
	return &vm.Error{Code: vm.CodeHypervisor, Message: "QEMU does not start: " + failed.stderr, Err: failed}
}
