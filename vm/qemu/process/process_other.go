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

// Orphans finds none, for the same reason as KillOrphans.
func Orphans(string) []string { return nil }

// KillOrphans does nothing: only Linux has the command lines of processes in a
// file system.
func KillOrphans(context.Context, string) error { return nil }

// WithoutAmbient calls f: only Linux has ambient capabilities.
func WithoutAmbient(f func() error) error { return f() }
