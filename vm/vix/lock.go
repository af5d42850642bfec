//go:build vix && cgo && !windows

package vix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"osx-builder/vm"
)

const (
	// lockPoll is how often locks are looked at.
	lockPoll = 50 * time.Millisecond

	// windowPatience is what a locked .vmx alone gets to become free.
	windowPatience = 5 * time.Second
)

// lock is a folder X.lck with which VMware's processes claim the file X.
//
// Each claim is a file in it, of fields divided by blanks. The second names
// the process: its number, a dash and more (open-vm-tools,
// lib/file/fileLockPrimitive.c and fileLockPosix.c).
type lock struct {
	path string
	user string // a process that lives, or might; "" if there is none
}

var claimFile = regexp.MustCompile(`^M[0-9]{5}\.lck$`)

// locksIn returns the locks in a machine's folder.
func locksIn(dir string) ([]lock, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var locks []lock
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lck") {
			continue
		}
		l := lock{path: filepath.Join(dir, e.Name())}
		if l.user, err = lockUser(l.path); err != nil {
			return nil, err
		}
		locks = append(locks, l)
	}
	return locks, err
}

// lockUser names a process that holds the lock, "" if none lives. What cannot
// be understood is taken for a lock that is in use.
func lockUser(path string) (string, error) {
	claims, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "an unknown process", nil //nolint:nilerr // a lock that is no folder
	}
	for _, c := range claims {
		data, err := os.ReadFile(filepath.Join(path, c.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		fields := bytes.Fields(bytes.TrimRight(data, "\x00"))
		if !claimFile.MatchString(c.Name()) || len(fields) < 4 {
			return "an unknown process", nil
		}
		number, _, _ := strings.Cut(string(fields[1]), "-")
		pid, err := strconv.Atoi(number)
		if err != nil || pid <= 0 {
			return "an unknown process", nil //nolint:nilerr // of another form
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Sprintf("process %s", fields[1]), nil
		}
	}
	return "", nil
}

// unlock removes the locks in a machine's folder that no process uses, which a
// crash can leave. It reports whether there was one and none in use is left.
func (d *Driver) unlock(dir string) bool {
	locks, err := locksIn(dir)
	if err != nil || len(locks) == 0 {
		return false
	}
	free := true
	for _, l := range locks {
		if l.user != "" {
			free = false
			continue
		}
		d.Log.Warn("removing a lock whose process is gone", "lock", l.path)
		if err := os.RemoveAll(l.path); err != nil {
			d.Log.Warn("lock not removed", "lock", l.path, "err", err)
			free = false
		}
	}
	return free
}

// awaitUnlocked waits until no process uses the machine in dir, which is off,
// and removes the locks that none uses. Where only the .vmx is locked, as by a
// window that shows the machine, it does not wait long: VMware may close that.
func (d *Driver) awaitUnlocked(ctx context.Context, m vm.Machine) error {
	start := time.Now()
	for {
		locks, err := locksIn(m.Dir)
		if err != nil {
			return err
		}
		used := inUse(locks)
		if len(used) == 0 {
			d.unlock(m.Dir)
			return nil
		}
		patience := d.Deadlines.Locks
		shown := len(used) == 1 && used[0].path == vmxPath(m)+".lck"
		if shown {
			patience = min(patience, windowPatience)
		}
		switch {
		case time.Since(start) < patience:
		case shown:
			return nil
		default:
			return stillLocked(used[0])
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return fmt.Errorf("waiting for the machine's locks to go: %w", ctx.Err())
		}
	}
}

// inUse returns the locks that a process may use.
func inUse(locks []lock) (used []lock) {
	for _, l := range locks {
		if l.user != "" {
			used = append(used, l)
		}
	}
	return used
}

func stillLocked(l lock) error {
	return &vm.Error{
		Code:    vm.CodeOpen,
		Message: fmt.Sprintf("the machine is off but still locked (%s by %s); close it in VMware's window and try again", filepath.Base(l.path), l.user),
	}
}
