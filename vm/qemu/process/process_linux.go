package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/confine"
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

// lockPIDFile locks a file that QEMU inherits. The lock belongs to the open file,
// not to a process.
func lockPIDFile(f *os.File) error {
	return os.NewSyscallError("fcntl", unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}))
}

// CanLock says that the pid files of all processes are locked.
const CanLock = true

// pidArguments returns nothing: QEMU inherits its lock.
func pidArguments() []string { return nil }

// findMachine returns the QEMU that was started for the machine id, or 0.
func findMachine(id string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, dir := range dirs {
		if runsMachine(dir, id) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
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

// KillUser kills every process of a machine's own user, whatever a QEMU that a
// guest took over has started and renamed. It is a no-op if there is none. A
// process of that user sends the signal, so that the kernel finds all others at
// once, however fast they multiply.
func KillUser(ctx context.Context, user int) error {
	ctx, cancel := context.WithTimeout(ctx, KillTimeout)
	defer cancel()
	for hasProcesses(user) {
		rules := confine.Rules{User: user, Free: true} // Landlock would forbid the signal
		out, err := confine.Output(confine.Script(ctx, rules, "kill -KILL -1\n", nil, nil), rules)
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("ending the processes of user %d: %w: %s", user, err, out)
		}
	}
	return nil
}

func hasProcesses(user int) bool {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	return slices.ContainsFunc(dirs, func(dir string) bool { return ownerOf(dir) == user })
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

// ownerOf returns the user of the process at dir in /proc, or -1 if it has
// ended.
func ownerOf(dir string) int {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil || bytes.Contains(status, []byte("\nState:\tZ")) {
		return -1
	}
	_, line, _ := bytes.Cut(status, []byte("\nUid:\t"))
	id, _, _ := bytes.Cut(line, []byte("\t"))
	user, err := strconv.Atoi(string(id))
	if err != nil {
		return -1
	}
	return user
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
	return name > 0 && string(args[name-1]) == "-name" && bytes.Contains(line, []byte("\x00-uuid\x00"+id+"\x00"))
}
