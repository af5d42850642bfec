package vmware

import (
	"math"
	"os"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
)

// HostMemory returns the host's memory in MiB.
func HostMemory() int {
	bytes, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return math.MaxInt32 // let VMware refuse
	}
	return int(bytes >> 20)
}

// LeaseFiles returns the lease files of VMware Fusion's DHCP servers.
func LeaseFiles() map[vm.NetworkType]string {
	return map[vm.NetworkType]string{
		vm.NAT:      "/var/db/vmware/vmnet-dhcpd-vmnet8.leases",
		vm.HostOnly: "/var/db/vmware/vmnet-dhcpd-vmnet1.leases",
	}
}

// reflink creates the file to, which must not exist, as a copy-on-write copy of the file from. APFS supports it.
func reflink(from, to string) error {
	if err := unix.Clonefile(from, to, unix.CLONE_NOFOLLOW); err != nil {
		return err
	}
	return os.Chmod(to, 0o600)
}
