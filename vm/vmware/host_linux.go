package vmware

import (
	"math"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
)

// HostMemory returns the host's memory in MiB.
func HostMemory() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return math.MaxInt32 // let VMware refuse
	}
	return int(info.Totalram * uint64(info.Unit) >> 20)
}

// LeaseFiles returns the lease files of VMware Workstation's DHCP servers.
func LeaseFiles() map[vm.NetworkType]string {
	return map[vm.NetworkType]string{
		vm.NAT:      "/etc/vmware/vmnet8/dhcpd/dhcpd.leases",
		vm.HostOnly: "/etc/vmware/vmnet1/dhcpd/dhcpd.leases",
	}
}
