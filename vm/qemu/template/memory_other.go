//go:build !linux

package template

import (
	"errors"
	"os"
)

// Supported reports whether this system can share memory as templates need it.
const Supported = false

var errPlatform = errors.New("machines start from memory on Linux only")

// NewMemory says that templates need Linux.
func NewMemory(int64) (*os.File, error) { return nil, errPlatform }

// Seal says that templates need Linux.
func Seal(*os.File) error { return errPlatform }

func copySparse(_, _ *os.File) error { return errPlatform }

func resident(*os.File) (int64, error) { return 0, errPlatform }
