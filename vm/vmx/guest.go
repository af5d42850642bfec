package vmx

import (
	"regexp"
	"strings"
)

// IsWindows reports whether the guest is a version of Windows.
func (h *Hardware) IsWindows() bool {
	name := strings.TrimPrefix(lower(h.GuestOS), "arm-")
	return strings.HasPrefix(name, "win") || strings.HasPrefix(name, "longhorn") || strings.HasPrefix(name, "whistler")
}

// IsMacOS reports whether the guest is macOS or Mac OS X, which VMware names after its kernel.
func (h *Hardware) IsMacOS() bool { return strings.HasPrefix(lower(h.GuestOS), "darwin") }

// IsARM reports whether the guest is for 64-bit ARM processors, as VMware Fusion makes it on Apple silicon.
func (h *Hardware) IsARM() bool { return strings.HasPrefix(lower(h.GuestOS), "arm-") }

// oldGuest matches guests from before PCI Express.
var oldGuest = regexp.MustCompile(`^(dos|os2|ecomstation|netware|win3|win9|winme|winnt|win2000|winxp|winnet|whistler)`)

// firstWithPCIExpress is the first version of VMware's virtual hardware that has PCI Express.
const firstWithPCIExpress = 7

// HasPCIExpress reports whether the machine has PCI Express and its guest knows it.
func (h *Hardware) HasPCIExpress() bool {
	return (h.Version == 0 || h.Version >= firstWithPCIExpress) && !oldGuest.MatchString(lower(h.GuestOS))
}

// hasVMXNET3 matches guests whose own kernel has a driver for vmxnet3: Linux since 2.6.32, and FreeBSD since 10.
var hasVMXNET3 = regexp.MustCompile(`^(` +
	`arm-(ubuntu|debian|fedora|rhel|other).*|ubuntu.*|debian([6-9]|1[0-9]).*|rhel([6-9]|1[0-9]).*|centos.*|oraclelinux.*|rockylinux.*|almalinux.*|fedora.*|amazonlinux.*` +
	`|sles1[1-9].*|opensuse.*|vmware-photon.*|coreos.*|crxpod.*|crxsys.*|asianux([4-9]).*|other26xlinux-64|other([3-9])xlinux.*|otherlinux-64` +
	`|freebsd1[0-9].*)$`)

// addedNIC returns the network card for a machine that has none. Its model is vmxnet3 if the guest surely has a driver
// for it, otherwise e1000, or e1000e on ARM.
func (h *Hardware) addedNIC() NIC {
	n := NIC{Model: "e1000", Connection: "bridged", Added: true}
	switch {
	case h.HasPCIExpress() && hasVMXNET3.MatchString(lower(h.GuestOS)):
		n.Model = "vmxnet3"
	case h.IsARM():
		n.Model = "e1000e"
	}
	return n
}
