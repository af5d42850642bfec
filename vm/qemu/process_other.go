//go:build unix && !linux

package qemu

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

// orphans finds none, for the same reason as haltOrphans.
func orphans(string) []string { return nil }

// haltOrphans does nothing: only Linux has the command lines of processes in a
// file system.
func haltOrphans(context.Context, string) error { return nil }

// withoutAmbient calls f: only Linux has ambient capabilities.
func withoutAmbient(f func() error) error { return f() }
