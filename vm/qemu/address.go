package qemu

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/qmp"
)

// maxAddresses bounds how many addresses a guest can have its reader see.
const maxAddresses = 64

// allAddresses lists the addresses of all interfaces but those that are valid
// on one link or within the guest alone.
func allAddresses(interfaces []qmp.Interface) (all []netip.Addr) {
	for _, i := range interfaces {
		for _, a := range globalAddresses(i) {
			if len(all) < maxAddresses && !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// cardAddresses lists those of the interfaces with the given MAC, IPv4 first
// as in VMware.
func cardAddresses(interfaces []qmp.Interface, mac string) []netip.Addr {
	var four, six []netip.Addr
	for _, i := range interfaces {
		if !strings.EqualFold(i.MAC, mac) {
			continue
		}
		for _, a := range globalAddresses(i) {
			if a.Is4() {
				four = append(four, a)
			} else {
				six = append(six, a)
			}
		}
	}
	return append(four, six...)
}

func globalAddresses(i qmp.Interface) (all []netip.Addr) {
	for _, a := range i.Addresses {
		if ip, err := netip.ParseAddr(a.IP); err == nil && ip.IsGlobalUnicast() {
			all = append(all, ip.Unmap().WithZone(""))
		}
	}
	return all
}

// chooseAddress returns the address at which the host reaches a guest on a
// network of type t, or the zero Addr. told is what the guest's agent says of
// its card, lease what its DHCP server or the host's neighbour table says;
// either may be missing. Where they differ the guest is believed, unless it
// names an address that cannot be its own: host are the host's addresses.
func chooseAddress(t vm.NetworkType, told []netip.Addr, lease netip.Addr, host []netip.Prefix) netip.Addr {
	if slices.Contains(told, lease) {
		return lease
	}
	for _, a := range told {
		if plausible(t, a, lease, host) {
			return a
		}
	}
	return lease
}

// plausible says whether a guest can have the address a. A LAN's addresses are
// unknown; on our own networks, where there is no IPv6, it must be of the
// subnet that the host shares with the guest.
func plausible(t vm.NetworkType, a, lease netip.Addr, host []netip.Prefix) bool {
	if slices.ContainsFunc(host, func(p netip.Prefix) bool { return p.Addr() == a }) {
		return false
	}
	if t == vm.Bridged {
		return true
	}
	return slices.ContainsFunc(host, func(p netip.Prefix) bool {
		return p.Contains(a) && (!lease.IsValid() || p.Contains(lease)) && a.Is4()
	})
}

// hostAddresses returns the host's own addresses with their subnets.
func hostAddresses() ([]netip.Prefix, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var prefixes []netip.Prefix
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, nil
}

// texts writes addresses as the API does.
func texts(addresses []netip.Addr) []string {
	var all []string
	for _, a := range addresses {
		all = append(all, a.String())
	}
	return all
}
