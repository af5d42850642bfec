package vmware

import (
	"net/netip"
	"os"
	"time"

	"osx-builder/vm"
)

// Leases are the lease files of VMware's DHCP servers, by network.
type Leases map[vm.NetworkType]string

// Complete adds to the status of an existing machine what its files say: warnings, NICs and addresses. st.IP is the
// address that the guest's tools report, or "". If it cannot be the guest's, it is replaced by that of a lease.
func (l Leases) Complete(st *vm.Status, m vm.Machine) error {
	c, err := readComplete(m)
	if err != nil {
		return err
	}
	st.Warnings, st.NICs = c.Warnings, nics(VMXPath(m))
	if len(st.NICs) > 0 {
		st.MAC = st.NICs[0].MACAddress
	}
	if st.Power == vm.PoweredOff || st.Power == vm.Suspended {
		st.IP = ""
		return nil
	}
	if !isGuestAddress(st.IP, m.Network) {
		st.IP = l.lease(st.MAC, m.Network)
	}
	for i := range st.NICs {
		if n := &st.NICs[i]; i == 0 {
			n.IPAddress = st.IP
		} else {
			n.IPAddress = l.lease(n.MACAddress, n.NetworkType)
		}
	}
	st.Up = st.Tools == vm.ToolsRunning || st.IP != ""
	return nil
}

// lease returns the address that VMware's DHCP server gave to a NIC, or "".
func (l Leases) lease(mac string, t vm.NetworkType) string {
	leases, err := os.ReadFile(l[t])
	if err != nil {
		return "" // VMware has no such network, or no lease yet
	}
	return Lease(leases, mac, time.Now())
}

// isGuestAddress reports whether the address that the tools report is the guest's, and can be reached. On VMware's
// own networks it can be the host's, which ends in 1. A guest without a lease has a link-local address.
func isGuestAddress(ip string, t vm.NetworkType) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() {
		return false
	}
	return t == vm.Bridged || !addr.Is4() || addr.As4()[3] != 1
}
