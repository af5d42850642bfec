//go:build vix && cgo && !windows

package vix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
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

	unknownProcess = "an unknown process"
)

// fileLocks reads and removes VMware's file locks.
type fileLocks struct{ log *slog.Logger }

// fileLock is a folder X.lck with which VMware's processes lock the file X.
//
// It contains a file for each process that holds or waits for the lock. The file has fields separated by spaces, of
// which the second identifies the process: its ID, a dash and more (open-vm-tools, lib/file/fileLockPrimitive.c and
// fileLockPosix.c).
type fileLock struct {
	name   string // of the folder
	holder string // a process that runs, or may run; "" if there is none
}

var lockMemberFile = regexp.MustCompile(`^M[0-9]{5}\.lck$`)

// readLocks returns the locks in a machine's folder. An error never means that there is no lock.
func readLocks(dir fs.FS) ([]fileLock, error) {
	entries, err := fs.ReadDir(dir, ".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var locks []fileLock
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lck") {
			continue
		}
		holder, err := lockHolder(dir, e.Name())
		if err != nil {
			return nil, err
		}
		locks = append(locks, fileLock{e.Name(), holder})
	}
	return locks, nil
}

// lockHolder returns a running process that holds the lock, or "". A lock that it does not understand counts as held.
func lockHolder(dir fs.FS, name string) (string, error) {
	members, err := fs.ReadDir(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return unknownProcess, nil //nolint:nilerr // a lock that is no folder
	}
	for _, m := range members {
		if !lockMemberFile.MatchString(m.Name()) {
			return unknownProcess, nil
		}
		data, err := fs.ReadFile(dir, path.Join(name, m.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		fields := bytes.Fields(bytes.TrimRight(data, "\x00"))
		if len(fields) < 4 {
			return unknownProcess, nil
		}
		number, _, _ := strings.Cut(string(fields[1]), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || pid <= 0 {
			return unknownProcess, nil //nolint:nilerr // of another form
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Sprintf("process %s", fields[1]), nil
		}
	}
	return "", nil
}

// heldLocks returns the locks in dir that a process holds or may hold.
func heldLocks(dir string) (held []fileLock, err error) {
	locks, err := readLocks(os.DirFS(dir))
	for _, l := range locks {
		if l.holder != "" {
			held = append(held, l)
		}
	}
	return held, err
}

// removeStale removes the locks in dir that no process holds, which a crash can leave. It reports whether there was a
// lock and none is left.
func (f fileLocks) removeStale(dir string) bool {
	locks, err := readLocks(os.DirFS(dir))
	if err != nil || len(locks) == 0 {
		return false
	}
	unlocked := true
	for _, l := range locks {
		if l.holder != "" {
			unlocked = false
			continue
		}
		lock := filepath.Join(dir, l.name)
		f.log.Warn("removing a lock whose process has exited", "lock", lock)
		if err := os.RemoveAll(lock); err != nil {
			f.log.Warn("lock not removed", "lock", lock, "err", err)
			unlocked = false
		}
	}
	return unlocked
}

// await waits until no process uses the machine, which is off, and removes stale locks. If only the .vmx is locked, a
// window may show the machine. VMware may close the window itself, so await then waits only a short time.
func (f fileLocks) await(ctx context.Context, m vm.Machine, timeout time.Duration) error {
	start := time.Now()
	for {
		held, err := heldLocks(m.Dir)
		if err != nil {
			return err
		}
		if len(held) == 0 {
			f.removeStale(m.Dir)
			return nil
		}
		limit := timeout
		onlyWindow := len(held) == 1 && held[0].name == filepath.Base(vmxPath(m))+".lck"
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

// awaitExit waits a short time until no process uses the machine in dir, and removes stale locks. It reports whether
// the machine is unlocked.
func (f fileLocks) awaitExit(ctx context.Context, dir string) bool {
	ctx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	for {
		locks, err := readLocks(os.DirFS(dir))
		if err == nil && (len(locks) == 0 || f.removeStale(dir)) {
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
