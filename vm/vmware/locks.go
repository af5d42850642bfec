package vmware

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"osx-builder/vm"
)

const (
	// lockPollInterval is how often locks are read while waiting for them.
	lockPollInterval = 50 * time.Millisecond

	// windowTimeout is how long to wait if only the .vmx is locked.
	windowTimeout = 5 * time.Second

	// exitTimeout is how long the process of a machine that was just powered off may still hold its lock.
	exitTimeout = 3 * time.Second
)

// Locks reads and removes VMware's file locks. Its methods may be called concurrently.
type Locks struct {
	log   *slog.Logger
	hosts *hostIDs
}

// NewLocks returns Locks that remember VMware's IDs of this host in the file at path, or only in memory if path is "".
func NewLocks(path string, log *slog.Logger) *Locks {
	return &Locks{log: log, hosts: newHostIDs(path)}
}

// Learn learns VMware's IDs of this host from the locks of a machine that runs here.
func (l *Locks) Learn(m vm.Machine) {
	locks, err := readLocks(os.DirFS(m.Dir))
	if err != nil {
		return // another machine teaches the same
	}
	for _, lock := range locks {
		for _, c := range lock.claims {
			if runs, _ := c.isHere(); runs {
				l.learn(c)
			}
		}
	}
}

func (l *Locks) learn(c claim) {
	if err := l.hosts.add(c.host); err != nil {
		l.log.Warn("VMware's ID of this host not written", "err", err)
	}
}

// holder returns a process that holds the lock or may hold it, or "".
//
// A claim of a process that does not run is dead only if it is a claim of this host: the machine's folder may be on a
// file system that other hosts use too.
func (l *Locks) holder(lock fileLock) string {
	for _, c := range lock.claims {
		runs, sure := c.isHere()
		if sure {
			l.learn(c)
		}
		switch {
		case !l.hosts.isOwn(c.host) && !runs:
			return fmt.Sprintf("%v, which may be another host: if none uses the machine, remove the folder %s", c, lock.name)
		case runs:
			return c.String()
		}
	}
	return lock.holder
}

// held returns the locks in dir that a process holds or may hold, with their holders, and how many locks there are.
func (l *Locks) held(dir string) (held []fileLock, all []fileLock, err error) {
	all, err = readLocks(os.DirFS(dir))
	for _, lock := range all {
		if lock.holder = l.holder(lock); lock.holder != "" {
			held = append(held, lock)
		}
	}
	return held, all, err
}

// Held returns an error that names a lock in the machine's folder that a process holds or may hold, or nil.
func (l *Locks) Held(m vm.Machine) error {
	held, _, err := l.held(m.Dir)
	if err == nil && len(held) > 0 {
		err = stillLocked(held[0])
	}
	return err
}

// RemoveStale removes the locks in dir that no process holds, which a crash can leave. It reports whether there was a
// lock and none is left.
func (l *Locks) RemoveStale(dir string) bool {
	held, all, err := l.held(dir)
	if err != nil || len(all) == 0 {
		return false
	}
	unlocked := len(held) == 0
	isHeld := make(map[string]bool, len(held))
	for _, lock := range held {
		isHeld[lock.name] = true
	}
	for _, lock := range all {
		if isHeld[lock.name] {
			continue
		}
		path := filepath.Join(dir, lock.name)
		l.log.Warn("removing a lock whose process has exited", "lock", path)
		if err := os.RemoveAll(path); err != nil {
			l.log.Warn("lock not removed", "lock", path, "err", err)
			unlocked = false
		}
	}
	return unlocked
}

// Await waits until no process uses the machine, which is off, and removes stale locks. If only the .vmx is locked, a
// window may show the machine. VMware may close the window itself, so Await then waits only a short time.
func (l *Locks) Await(ctx context.Context, m vm.Machine, timeout time.Duration) error {
	start := time.Now()
	for {
		held, _, err := l.held(m.Dir)
		if err != nil {
			return err
		}
		if len(held) == 0 {
			l.RemoveStale(m.Dir)
			return nil
		}
		limit := timeout
		onlyWindow := len(held) == 1 && held[0].name == filepath.Base(VMXPath(m))+".lck"
		if onlyWindow {
			limit = min(limit, windowTimeout)
		}
		switch {
		case time.Since(start) < limit:
		case onlyWindow:
			return nil
		default:
			return stillLocked(held[0])
		}
		select {
		case <-time.After(lockPollInterval):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the machine's locks: %w", ctx.Err())
		}
	}
}

// AwaitExit waits a short time until no process uses the machine in dir, and removes stale locks. It reports whether
// the machine is unlocked.
func (l *Locks) AwaitExit(ctx context.Context, dir string) bool {
	ctx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	for {
		_, all, err := l.held(dir)
		if err == nil && (len(all) == 0 || l.RemoveStale(dir)) {
			return true
		}
		select {
		case <-time.After(lockPollInterval):
		case <-ctx.Done():
			return false
		}
	}
}

func stillLocked(l fileLock) error {
	return &vm.Error{
		Code:    vm.CodeOpen,
		Message: fmt.Sprintf("the machine is off but still locked (%s by %s); close it in VMware's window and try again", l.name, l.holder),
	}
}
