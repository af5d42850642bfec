//go:build !linux || !(amd64 || arm64)

package e2e

import (
	"errors"
	"os/exec"
)

// FaultyDisk needs seccomp, which only Linux has.
type FaultyDisk struct{}

func (d *FaultyDisk) wrap(*exec.Cmd, string) (func() error, error) {
	return nil, errors.New("a faulty disk needs seccomp")
}

// ExecFiltered does nothing.
func ExecFiltered() {}
