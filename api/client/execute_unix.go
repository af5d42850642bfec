//go:build !windows

package client

import (
	"os"
	"syscall"
)

// execute replaces this process by the program at path. It returns only an error.
func execute(path string, args []string) error { return syscall.Exec(path, args, os.Environ()) }
