//go:build !linux || !(amd64 || arm64)

package e2e

import (
	"errors"
	"os/exec"
)

// Disk needs Linux's seccomp.
type FaultyDisk struct{}

func (d *FaultyDisk) wrap(*exec.Cmd, string) (func() error, error) {
	return nil, errors.New("making a disk fail needs seccomp")
}

// Launch returns at once.
func Launch() {}
