// Package process starts QEMU processes that outlive the daemon, finds them
// again, kills them, and reports how they ended.
package process

import (
	"context"
	"errors"
	"fmt"
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
// QEMU holds a POSIX write lock on its pid file while it runs, and the kernel
// reports the lock's owner. Unlike the number in the file, the owner is never
// stale and never another process.
func Holder(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, PIDFile))
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
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
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
