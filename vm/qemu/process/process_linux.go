package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kill sends SIGKILL to the process pid if alive still returns true. It opens
// the pidfd first, so the signal cannot reach another process that got the same
// number in between.
func kill(pid int, alive func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	if !alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

// KillOrphans kills every QEMU that was started for the machine id and that no
// pid file leads to, because somebody removed the file or its folder.
func KillOrphans(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, KillTimeout)
	defer cancel()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		isOrphan := func() bool { return runsMachine(dir, id) }
		if !isOrphan() {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if err := kill(pid, isOrphan); err != nil {
			return fmt.Errorf("ending the orphaned QEMU, process %d: %w", pid, err)
		}
		if err := Wait(ctx, fmt.Sprintf("the end of the orphaned QEMU, process %d", pid), func() bool { return !isOrphan() }); err != nil {
			return err
		}
	}
	return nil
}

// Orphans returns the ids of the machines whose QEMU works in a folder of dir,
// even if that folder was removed.
func Orphans(dir string) (ids []string) {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, proc := range procs {
		cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
		if err != nil {
			continue
		}
		cwd = strings.TrimSuffix(cwd, " (deleted)")
		if id := filepath.Base(cwd); filepath.Dir(cwd) == dir && runsMachine(proc, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// runsMachine reports whether the process at dir in /proc has the command line
// of the machine id. A process that has ended has none.
func runsMachine(dir, id string) bool {
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return false
	}
	args := bytes.Split(line, []byte{0})
	name := slices.IndexFunc(args, func(a []byte) bool { return string(a) == GuestName(id) })
	return name > 0 && string(args[name-1]) == "-name" && bytes.Contains(line, []byte("\x00-pidfile\x00"+PIDFile+"\x00"))
}

// WithoutAmbient calls f so that the processes which f starts do not inherit the
// capabilities that a daemon without root has for its networks. Only the thread
// that calls f loses them, and that thread ends with its goroutine.
func WithoutAmbient(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			done <- os.NewSyscallError("prctl", err)
			return
		}
		done <- f()
	}()
	return <-done
}
