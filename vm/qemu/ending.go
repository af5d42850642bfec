package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
)

const (
	// exitFile has the exit status of the machine's last QEMU. The shell that
	// waits for QEMU locks it, and the kernel releases the lock when the shell
	// ends, so a status that is missing without a lock will not come any more.
	exitFile = "exit"

	// switchedOffFile is there if a client had the machine switched off.
	switchedOffFile = "switched-off"

	// supervisorTimeout is how long the shell may take to write down how QEMU
	// ended, when nothing depends on it.
	supervisorTimeout = 2 * time.Second

	// deathsEvery is how long a death may stay unnoticed in the log.
	deathsEvery = 10 * time.Second
)

// blankStatus is what exitFile has until QEMU has ended. The status overwrites
// it, which a full disk does not prevent.
const blankStatus = "       \n"

// ending is how a machine's last QEMU ended.
type ending struct {
	reason    string // in one line; "" if it is not known
	died      bool   // neither the guest nor a client wanted it
	explained bool   // QEMU ended by itself and said why
	stderr    string // the end of what QEMU wrote to its standard error
}

func (e ending) String() string {
	if e.stderr == "" || strings.Contains(e.reason, oneLine(e.stderr)) {
		return e.reason
	}
	return e.reason + "; its last words: " + oneLine(e.stderr)
}

// newExitFile puts a blank exitFile into dir and returns it open and locked. It
// is another file each time, so a shell that still has the last one cannot
// write into it.
func newExitFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, exitFile+"-*")
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(blankStatus)
	if err == nil {
		_, err = f.Seek(0, 0)
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, exitFile))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the file for QEMU's exit status: %w", err), f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// readExit returns what exitFile has, "" if there is none, and whether somebody
// is there to write to it.
func readExit(dir string) (text string, supervised bool) {
	f, err := os.Open(filepath.Join(dir, exitFile))
	if err != nil {
		return "", false
	}
	defer f.Close()
	// Whoever had the lock has written before it was released.
	supervised = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return "", supervised
	}
	return b.String(), supervised
}

// isSupervised reports whether a shell waits for the machine's QEMU to end.
func isSupervised(dir string) bool {
	_, is := readExit(dir)
	return is
}

// lastEnding returns how the QEMU ended that ran the machine in dir last.
func lastEnding(dir string) ending {
	text, supervised := readExit(dir)
	if text == "" || supervised {
		return ending{} // it never ran, or an earlier version of the daemon started it
	}
	_, off := os.Lstat(filepath.Join(dir, switchedOffFile))
	return endingOf(strings.TrimSpace(text), stderrTail(dir), off == nil)
}

// terminated is what QEMU writes before it obeys a signal that ends programs.
var terminated = regexp.MustCompile(`terminating on signal (\d+)`)

// endingOf interprets an exit status as a shell writes it: "" if it could not.
func endingOf(status, words string, switchedOff bool) ending {
	n, err := strconv.Atoi(status)
	by := terminated.FindStringSubmatch(words)
	switch {
	case err != nil:
		return ending{reason: "QEMU was killed together with what watched it, or the host restarted", died: true, stderr: words}
	case switchedOff && (n == 0 || n == signalled+int(unix.SIGKILL)):
		return ending{reason: "it was switched off"}
	case n == 0 && by == nil:
		return ending{reason: "the guest shut down"}
	case n == 0:
		s, _ := strconv.Atoi(by[1])
		return ending{reason: "QEMU was ended by " + signalText(s), died: true, stderr: words}
	case n > signalled:
		return ending{reason: "QEMU was killed by " + signalText(n-signalled), died: true, stderr: words}
	case words == "":
		return ending{reason: fmt.Sprintf("QEMU ended with status %d", n), died: true}
	default:
		return ending{reason: fmt.Sprintf("QEMU ended with status %d: %s", n, oneLine(words)), died: true, explained: true, stderr: words}
	}
}

// signalled is what a shell adds to the number of the signal that ended a
// program.
const signalled = 128

func signalText(n int) string { return fmt.Sprintf("signal %d (%v)", n, syscall.Signal(n)) }

// fillEnding says in st how a machine without a process ended. A shell that has
// not written it down yet is waited for.
func (d *Driver) fillEnding(ctx context.Context, m vm.Machine, st vm.Status) vm.Status {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout(ctx))
	defer cancel()
	pid := 0
	written := wait(ctx, "the end of QEMU", func() bool {
		pid, _ = holder(m.Dir)
		return pid != 0 || d.isStarting(m.Dir) || !isSupervised(m.Dir)
	})
	if pid != 0 || d.isStarting(m.Dir) {
		st.Power = vm.PoweringOn
		return st
	}
	e := lastEnding(m.Dir)
	if written != nil {
		e = ending{reason: "QEMU ended, and how is not known", died: true}
	}
	st.StoppedBecause, st.Died = e.reason, e.died
	return st
}

// oneLine makes a printable line of any text.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
}

// awaitSupervisor waits until the shell of a QEMU that has ended is gone too. A
// shell that is stopped is left alone: it does no harm.
func awaitSupervisor(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, supervisorTimeout)
	defer cancel()
	_ = wait(ctx, "the shell of a QEMU that ended", func() bool { return !isSupervised(dir) })
}

// awaitLock waits until a QEMU that was started a moment ago holds its lock, or
// has ended.
func awaitLock(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_ = wait(ctx, "the lock of QEMU", func() bool {
		pid, err := holder(dir)
		return err != nil || pid != 0 || !isSupervised(dir)
	})
}

// noteSwitchedOff writes down that it was a client who switched the machine off.
func (d *Driver) noteSwitchedOff(m vm.Machine) {
	if err := writeJSON(filepath.Join(m.Dir, switchedOffFile), struct{}{}); err != nil {
		d.log.Warn("not written down that a client switched the machine off", "vm", m.ID, "err", err)
	}
}

func forgetSwitchedOff(dir string) error {
	if err := os.Remove(filepath.Join(dir, switchedOffFile)); err != nil && !missing(err) {
		return err
	}
	return nil
}

// logDeaths logs each QEMU that ended unwanted, also while the daemon was away,
// until ctx ends.
func (d *Driver) logDeaths(ctx context.Context) {
	tick := time.NewTicker(deathsEvery)
	defer tick.Stop()
	logged := map[string]time.Time{} // when it died, by machine
	for {
		d.logNewDeaths(logged)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (d *Driver) logNewDeaths(logged map[string]time.Time) {
	machines, err := os.ReadDir(d.machinesDir)
	if err != nil && !missing(err) {
		d.log.Warn("machines not looked at for deaths", "err", err)
		return
	}
	there := map[string]bool{}
	for _, entry := range machines {
		id, dir := entry.Name(), filepath.Join(d.machinesDir, entry.Name())
		info, err := os.Stat(filepath.Join(dir, exitFile))
		if err != nil {
			continue
		}
		there[id] = true
		pid, err := holder(dir)
		if err != nil || pid != 0 || d.isStarting(dir) || logged[id].Equal(info.ModTime()) {
			continue
		}
		e := lastEnding(dir)
		if e.reason == "" {
			continue // it has not been written down yet
		}
		logged[id] = info.ModTime()
		if e.died {
			d.log.Warn("a machine's QEMU died", "vm", id, "because", e.reason, "words", e.stderr, "at", info.ModTime().UTC())
		}
	}
	for id := range logged {
		if !there[id] {
			delete(logged, id)
		}
	}
}
