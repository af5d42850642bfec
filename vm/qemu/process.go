package qemu

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
	pidFile = "pid"

	// deathTimeout is how long the kernel is given to end a process after
	// SIGKILL: it takes longer only where the process hangs in a disk or a
	// network file system that does not answer.
	deathTimeout = 10 * time.Second

	// pollPause lies between two looks at something that tells no news.
	pollPause = 5 * time.Millisecond
)

// holder returns the process that runs the machine in dir, or 0.
//
// QEMU holds a POSIX write lock on its pid file for as long as it lives, and
// the kernel names the lock's owner. Unlike the number in the file this can be
// neither stale nor another process's.
func holder(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, pidFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("asking who locks %s: %w", f.Name(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// halt ends the process that runs the machine in dir at once and returns when
// it is gone. It is a no-op where there is none.
func halt(ctx context.Context, dir string) error {
	pid, err := holder(dir)
	if err != nil || pid == 0 {
		return err
	}
	alive := func() bool { return holds(dir, pid) }
	if err := kill(pid, alive); err != nil {
		return fmt.Errorf("ending QEMU, process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, deathTimeout)
	defer cancel()
	return wait(ctx, fmt.Sprintf("the end of QEMU, process %d", pid), func() bool { return !alive() })
}

// holds says whether the process pid still runs the machine in dir.
func holds(dir string, pid int) bool {
	now, err := holder(dir)
	return err == nil && now == pid
}

// wait returns nil once done says so, and an error that names what it waited
// for when ctx ends before.
func wait(ctx context.Context, what string, done func() bool) error {
	tick := time.NewTicker(pollPause)
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
