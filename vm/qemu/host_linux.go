package qemu

import "golang.org/x/sys/unix"

// probeHVF is for macOS alone.
func probeHVF() acceleration { return acceleration{"tcg", "hvf is part of macOS"} }

// hostMemory returns the host's memory in MiB, or 0 where it is not known.
func hostMemory() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
}
