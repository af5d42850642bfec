package qemu

import (
	"os"

	"golang.org/x/sys/unix"
)

// probeHVF reports that there is no hvf, which only macOS has.
func probeHVF() acceleration { return acceleration{"tcg", "hvf is part of macOS"} }

// hostMemory returns the host's memory in MiB, or 0 if it is not known.
func hostMemory() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
}

// punchHole turns the file's first bytes into a hole.
func punchHole(f *os.File, bytes int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, bytes)
	return os.NewSyscallError("fallocate", err)
}
