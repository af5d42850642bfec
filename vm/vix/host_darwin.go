//go:build vix && cgo

package vix

import (
	"math"
	"os"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
)

// hostMemory is the host's memory in MiB.
func hostMemory() int {
	bytes, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return math.MaxInt32 // let VMware refuse
	}
	return int(bytes >> 20)
}

// leaseFiles is where VMware Fusion's DHCP servers write their leases.
func leaseFiles() map[vm.NetworkType]string {
	return map[vm.NetworkType]string{
		vm.NAT:      "/var/db/vmware/vmnet-dhcpd-vmnet8.leases",
		vm.HostOnly: "/var/db/vmware/vmnet-dhcpd-vmnet1.leases",
	}
}

// reflink makes the file to, which must not exist, of the blocks of the file
// from. APFS can.
func reflink(from, to string) error {
	if err := unix.Clonefile(from, to, unix.CLONE_NOFOLLOW); err != nil {
		return err
	}
	return os.Chmod(to, 0o600)
}
