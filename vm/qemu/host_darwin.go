package qemu

import "golang.org/x/sys/unix"

// probeHVF asks the kernel whether Hypervisor.framework works on this Mac.
func probeHVF() acceleration {
	has, err := unix.SysctlUint32("kern.hv_support")
	if err != nil || has == 0 {
		return acceleration{"tcg", "kern.hv_support says that this Mac has no Hypervisor.framework"}
	}
	return acceleration{"hvf", "kern.hv_support says that this Mac has Hypervisor.framework"}
}

// hostMemory returns the host's memory in MiB, or 0 where it is not known.
func hostMemory() int {
	bytes, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int(bytes >> 20)
}
