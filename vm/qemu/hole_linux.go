package qemu

import (
	"os"

	"golang.org/x/sys/unix"
)

// punch makes a hole of the file's first bytes.
func punch(f *os.File, bytes int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, bytes)
	return os.NewSyscallError("fallocate", err)
}
