//go:build unix && !linux

package process

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// kill sends SIGKILL to the process pid if alive still returns true.
func kill(pid int, alive func() bool) error {
	if !alive() {
		return nil
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// lockPIDFile does nothing: QEMU itself locks its pid file.
func lockPIDFile(*os.File) error { return nil }

// CanLock says that only QEMU's own pid file is locked.
const CanLock = false

// pidArguments returns the options that make QEMU lock its pid file.
func pidArguments() []string { return []string{"-pidfile", PIDFile} }

// findMachine finds none, for the same reason as KillOrphans.
func findMachine(string) int { return 0 }

// Orphans finds none, for the same reason as KillOrphans.
func Orphans(string) []string { return nil }

// KillOrphans does nothing: only Linux has the command lines of processes in a
// file system.
func KillOrphans(context.Context, string) error { return nil }

// KillUser does nothing: only Linux's machines have users of their own.
func KillUser(context.Context, int) error { return nil }
