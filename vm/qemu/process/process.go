// Package process starts QEMU processes that outlive the daemon, finds them
// again, kills them, and reports how they ended.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// PIDFile is the name of the file in a machine's folder that its QEMU
	// locks.
	PIDFile = "pid"

	// KillTimeout bounds how long the kernel may take to end a process after
	// SIGKILL. It takes longer only if the process hangs in a disk or a network
	// file system that does not answer.
	KillTimeout = 10 * time.Second

	// pollInterval is the time between two checks of a condition that cannot be
	// waited for.
	pollInterval = 5 * time.Millisecond
)

// GuestName identifies the machine's QEMU in a list of processes, as the value
// of its option -name.
func GuestName(id string) string { return "guest=osxb-" + id }

// Holder returns the process that runs the machine in dir, or 0.
//
// QEMU has a lock on its pid file while it runs, which the kernel releases. So the
// number in the file is never stale.
func Holder(dir string) (int, error) {
	return holder(filepath.Join(dir, PIDFile), func() int { return findMachine(filepath.Base(dir)) })
}

// holder returns the process that has a lock on the pid file at path, or 0. If the file has no number yet, holder
// returns what find does.
func holder(path string, find func() int) (int, error) {
	f, err := OpenOwned(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("reading the owner of the lock of %s: %w", f.Name(), err)
	}
	switch {
	case lock.Type == unix.F_UNLCK:
		return 0, nil
	case lock.Pid > 0: // QEMU itself locked the file: on macOS, or for an earlier version of the daemon
		return int(lock.Pid), nil
	default:
		return numberIn(f, find), nil
	}
}

// numberIn returns the number in a pid file that is locked, if the process of this
// number is in the session that the file names. Another one would have the number
// of a QEMU that has left its lock to a process which it started. If the shell has
// not written the number, or was killed before it did, numberIn returns what find
// does.
func numberIn(f *os.File, find func() int) int {
	var pid, session int
	if n, _ := fmt.Fscan(io.LimitReader(f, maxStatus), &pid, &session); n < 2 {
		return find()
	}
	if is, err := unix.Getsid(pid); err != nil || is != session {
		return 0
	}
	return pid
}

// Kill kills the process that runs the machine in dir and returns when it is gone.
// It is a no-op if there is none.
func Kill(ctx context.Context, dir string) error {
	pid, err := Holder(dir)
	if err != nil || pid == 0 {
		return err
	}
	alive := func() bool { return Holds(dir, pid) }
	if err := kill(pid, alive); err != nil {
		return fmt.Errorf("ending QEMU, process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, KillTimeout)
	defer cancel()
	return Wait(ctx, fmt.Sprintf("the end of QEMU, process %d", pid), func() bool { return !alive() })
}

// Holds reports whether the process pid still runs the machine in dir.
func Holds(dir string, pid int) bool {
	now, err := Holder(dir)
	return err == nil && now == pid
}

// Wait returns nil once done returns true. If ctx ends first, the error names what
// it waited for.
func Wait(ctx context.Context, what string, done func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}
