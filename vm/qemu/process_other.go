//go:build unix && !linux

package qemu

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// kill sends SIGKILL to the process pid if alive still says that it is the
// right one.
func kill(pid int, alive func() bool) error {
	if !alive() {
		return nil
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// strays finds none, for the same reason as haltStrays.
func strays(string) []string { return nil }

// haltStrays does nothing: only Linux shows the command lines of processes in
// a file system.
func haltStrays(context.Context, string) error { return nil }

// withoutAmbient calls f: elsewhere there is nothing of the kind to inherit.
func withoutAmbient(f func() error) error { return f() }
