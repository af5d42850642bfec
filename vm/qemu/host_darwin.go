package qemu

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeHVF asks the kernel whether Hypervisor.framework works on this Mac.
func probeHVF() acceleration {
	has, err := unix.SysctlUint32("kern.hv_support")
	if err != nil || has == 0 {
		return acceleration{"tcg", "kern.hv_support says that this Mac has no Hypervisor.framework"}
	}
	return acceleration{"hvf", "kern.hv_support says that this Mac has Hypervisor.framework"}
}

// hostMemory returns the host's memory in MiB, or 0 if it is not known.
func hostMemory() int {
	bytes, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int(bytes >> 20)
}

// punchHole turns the file's first bytes into a hole.
func punchHole(f *os.File, bytes int64) error {
	hole := &struct { // fpunchhole_t
		flags, reserved uint32
		offset, length  int64
	}{length: bytes}
	_, err := unix.FcntlInt(f.Fd(), unix.F_PUNCHHOLE, int(uintptr(unsafe.Pointer(hole))))
	runtime.KeepAlive(hole)
	return os.NewSyscallError("fcntl", err)
}
