package qemu

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

// kill sends SIGKILL to the process pid if alive still says that it is the
// right one. The pidfd is taken first and sticks to its process, so the signal
// cannot reach another that got the same number meanwhile.
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

// haltStrays ends every QEMU that was started for the machine id and is found
// in no pid file: one whose folder or pid file somebody removed.
func haltStrays(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, deathTimeout)
	defer cancel()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		stray := func() bool { return isMachine(dir, id) }
		if !stray() {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if err := kill(pid, stray); err != nil {
			return fmt.Errorf("ending the stray QEMU, process %d: %w", pid, err)
		}
		if err := wait(ctx, fmt.Sprintf("the end of the stray QEMU, process %d", pid), func() bool { return !stray() }); err != nil {
			return err
		}
	}
	return nil
}

// strays returns the ids of the machines whose QEMU works in a folder of dir,
// be it one that was removed meanwhile.
func strays(dir string) (ids []string) {
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
		if id := filepath.Base(cwd); filepath.Dir(cwd) == dir && isMachine(proc, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// isMachine says whether the process at dir in /proc has the command line of
// the machine id. A dead one has none.
func isMachine(dir, id string) bool {
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return false
	}
	args := bytes.Split(line, []byte{0})
	name := slices.IndexFunc(args, func(a []byte) bool { return string(a) == guestName(id) })
	return name > 0 && string(args[name-1]) == "-name" && bytes.Contains(line, []byte("\x00-pidfile\x00"+pidFile+"\x00"))
}

// withoutAmbient calls f, which starts processes, so that they do not inherit
// the capabilities that a daemon which is not root was given for its networks.
// The thread, which alone has lost them, ends with the goroutine.
func withoutAmbient(f func() error) error {
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
