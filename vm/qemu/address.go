package qemu

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/qmp"
)

// maxAddresses bounds how many addresses of a guest the API shows.
const maxAddresses = 64

// allAddresses lists the addresses of all interfaces, without loopback and
// link-local ones.
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

// cardAddresses lists the addresses of the interfaces with the given MAC address,
// IPv4 first as on VMware.
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
// network of type t, or the zero Addr. reported are the addresses that the
// guest's agent reports for its card; lease comes from the DHCP server or from
// the host's neighbour table. Either may be missing. If they differ,
// chooseAddress prefers a reported one, unless it cannot be the guest's. host are
// the host's addresses.
func chooseAddress(t vm.NetworkType, reported []netip.Addr, lease netip.Addr, host []netip.Prefix) netip.Addr {
	if slices.Contains(reported, lease) {
		return lease
	}
	for _, a := range reported {
		if plausible(t, a, lease, host) {
			return a
		}
	}
	return lease
}

// plausible reports whether a guest can have the address a. On a LAN every
// address is possible except the host's. On managed networks, which have no IPv6,
// the address must belong to the subnet that the host shares with the guest.
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

// address returns where the host reaches a guest on a bridge by the card with
// this MAC address on a network of type t. reported are the addresses that the
// guest's agent reports for its card.
func (n *networks) address(mac net.HardwareAddr, t vm.NetworkType, reported []netip.Addr) (netip.Addr, error) {
	lease, err := n.manager.Address(mac)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("looking up the machine's lease: %w", err)
	}
	if len(reported) == 0 || slices.Contains(reported, lease) {
		return lease, nil
	}
	reported, err = n.withoutTaken(mac, reported)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("looking up the owners of the addresses that the guest reports: %w", err)
	}
	host, err := hostAddresses()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("listing the host's addresses: %w", err)
	}
	return chooseAddress(t, reported, lease, host), nil
}

// withoutTaken returns the addresses that no other machine has. Otherwise a guest
// could make clients connect to another machine.
func (n *networks) withoutTaken(mac net.HardwareAddr, reported []netip.Addr) (own []netip.Addr, err error) {
	for _, a := range reported {
		taken, err := n.manager.Taken(a, mac)
		if err != nil {
			return nil, err
		}
		if !taken {
			own = append(own, a)
		}
	}
	return own, nil
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

// texts formats addresses as the API shows them.
func texts(addresses []netip.Addr) []string {
	var all []string
	for _, a := range addresses {
		all = append(all, a.String())
	}
	return all
}
