package qemu

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// punch makes a hole of the file's first bytes.
func punch(f *os.File, bytes int64) error {
	hole := &struct { // fpunchhole_t
		flags, reserved uint32
		offset, length  int64
	}{length: bytes}
	_, err := unix.FcntlInt(f.Fd(), unix.F_PUNCHHOLE, int(uintptr(unsafe.Pointer(hole))))
	runtime.KeepAlive(hole)
	return os.NewSyscallError("fcntl", err)
}
