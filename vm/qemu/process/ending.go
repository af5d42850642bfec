package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ExitFile is the name of the file in a machine's folder that has the exit
	// status of the machine's last QEMU. The shell that waits for QEMU locks it,
	// and the kernel releases the lock when the shell ends. So a status that is
	// missing from an unlocked file never comes.
	ExitFile = "exit"

	// LogFile is the name of the file in a machine's folder that has the
	// standard error of the machine's last QEMU.
	LogFile = "qemu.log"

	// blankStatus is the content of ExitFile until QEMU has ended. The status
	// overwrites it, which needs no space on the disk.
	blankStatus = "       \n"

	// maxStatus bounds what is read of ExitFile, which a QEMU that a guest took over may have made the shell write.
	maxStatus = 64

	// supervisorTimeout bounds the wait for the shell to write down how QEMU
	// ended, if nothing depends on it.
	supervisorTimeout = 2 * time.Second

	// maxStderr bounds how much of QEMU's standard error goes into an error.
	maxStderr = 1 << 10
)

// Ending is how a machine's last QEMU ended. The zero Ending means that this is
// not known.
type Ending struct {
	Reason    string // in one line
	Died      bool   // neither the guest nor a client wanted it
	Explained bool   // QEMU ended by itself and said why
	Stderr    string // the end of what QEMU wrote to its standard error
}

func (e Ending) String() string {
	if e.Stderr == "" || strings.Contains(e.Reason, oneLine(e.Stderr)) {
		return e.Reason
	}
	return e.Reason + "; its last words: " + oneLine(e.Stderr)
}

// LastEnding returns how the last QEMU of the machine in dir ended. switchedOff
// reports whether a client switched the machine off.
func LastEnding(dir string, switchedOff bool) Ending {
	text, supervised := readExit(dir)
	if text == "" || supervised {
		return Ending{} // it never ran, or an earlier version of the daemon started it
	}
	return endingOf(strings.TrimSpace(text), stderrTail(dir), switchedOff)
}

// terminated matches what QEMU writes before it obeys a signal.
var terminated = regexp.MustCompile(`terminating on signal (\d+)`)

// endingOf interprets an exit status as a shell writes it. The status is "" if
// the shell could not write it.
func endingOf(status, stderr string, switchedOff bool) Ending {
	n, err := strconv.Atoi(status)
	by := terminated.FindStringSubmatch(stderr)
	switch {
	case err != nil:
		return Ending{Reason: "QEMU was killed together with what watched it, or the host restarted", Died: true, Stderr: stderr}
	case switchedOff && (n == 0 || n == signalled+int(unix.SIGKILL)):
		return Ending{Reason: "it was switched off"}
	case n == 0 && by == nil:
		return Ending{Reason: "the guest shut down"}
	case n == 0:
		s, _ := strconv.Atoi(by[1])
		return Ending{Reason: "QEMU was ended by " + signalText(s), Died: true, Stderr: stderr}
	case n > signalled:
		return Ending{Reason: "QEMU was killed by " + signalText(n-signalled), Died: true, Stderr: stderr}
	case stderr == "":
		return Ending{Reason: fmt.Sprintf("QEMU ended with status %d", n), Died: true}
	default:
		return Ending{Reason: fmt.Sprintf("QEMU ended with status %d: %s", n, oneLine(stderr)), Died: true, Explained: true, Stderr: stderr}
	}
}

// signalled is what a shell adds to the number of the signal that ended a
// program.
const signalled = 128

func signalText(n int) string { return fmt.Sprintf("signal %d (%v)", n, syscall.Signal(n)) }

// stderrTail returns the end of what QEMU wrote to its standard error.
func stderrTail(dir string) string {
	f, err := OpenOwned(filepath.Join(dir, LogFile), os.O_RDONLY)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	_, _ = f.Seek(-maxStderr, io.SeekEnd) // fails for a shorter file, which is read from its start
	text, err := io.ReadAll(io.LimitReader(f, maxStderr))
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(text)), "")
}

// oneLine turns any text into one printable line.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
}

// newExitFile puts a blank ExitFile into dir and returns it open and locked. It
// creates another file each time, so a shell that still has the last one open
// cannot write into it.
func newExitFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ExitFile+"-*")
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
		err = os.Rename(f.Name(), filepath.Join(dir, ExitFile))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating the file for QEMU's exit status: %w", err), f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// readExit returns the content of ExitFile, or "" if there is no file, and
// whether a shell may still write to it.
func readExit(dir string) (text string, supervised bool) {
	f, err := OpenOwned(filepath.Join(dir, ExitFile), os.O_RDONLY)
	if err != nil {
		return "", false
	}
	defer f.Close()
	// The shell writes before it releases the lock, so the lock is tried first.
	supervised = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
	var b bytes.Buffer
	if _, err := b.ReadFrom(io.LimitReader(f, maxStatus)); err != nil {
		return "", supervised
	}
	return b.String(), supervised
}

// IsSupervised reports whether a shell waits for the machine's QEMU to end.
func IsSupervised(dir string) bool {
	_, supervised := readExit(dir)
	return supervised
}

// AwaitSupervisor waits until the shell of a QEMU that has ended is gone too. It
// gives up after a while, because a stopped shell does no harm.
func AwaitSupervisor(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, supervisorTimeout)
	defer cancel()
	_ = Wait(ctx, "the shell of a QEMU that ended", func() bool { return !IsSupervised(dir) })
}

// AwaitLock waits at most timeout until a QEMU that has just been started holds
// its lock, or has ended.
func AwaitLock(ctx context.Context, dir string, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = Wait(ctx, "the lock of QEMU", func() bool {
		pid, err := Holder(dir)
		return err != nil || pid != 0 || !IsSupervised(dir)
	})
}
