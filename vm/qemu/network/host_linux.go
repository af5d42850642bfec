package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// assign gives network k its gateway and each of its guests an address where
// they have none yet. If the bridge exists, its address is the gateway.
func (m *Manager) assign(st *state, k Kind) error {
	if k == Bridged {
		return nil
	}
	gw, err := m.gateway(st, k)
	if err != nil {
		return fmt.Errorf("choosing the subnet of the %s network: %w", k, err)
	}
	st.Gateways[k] = gw
	taken := map[netip.Addr]bool{st.Inner[k]: true}
	for _, g := range st.attached(k) {
		taken[g.Address] = true
	}
	for i := range st.Guests {
		g := &st.Guests[i]
		if g.Kind != k || gw.Contains(g.Address) {
			continue
		}
		if g.Address, err = freeAddress(gw, g.MAC, taken); err != nil {
			return err
		}
		taken[g.Address] = true
	}
	return nil
}

// gateway returns the host's address in network k: what its bridge has, else
// otherwise the address that it had, otherwise the configured one, otherwise a free one.
func (m *Manager) gateway(st *state, k Kind) (netip.Prefix, error) {
	asked := k == NAT && m.subnet.IsValid()
	had, err := m.devices.bridgeAddress(k)
	if err != nil {
		return netip.Prefix{}, err
	}
	if had.IsValid() && asked && had.Masked() != m.subnet {
		if len(st.attached(k)) > 1 { // more than the guest that is being attached
			m.log.Warn("the nat network keeps its subnet while machines are attached to it",
				"subnet", had.Masked(), "asked", m.subnet)
			return had, nil
		}
		if err := removeLink(m.bridgeName(k)); err != nil {
			return netip.Prefix{}, err
		}
		had = netip.Prefix{}
	}
	if had.IsValid() {
		return had, nil
	}
	used, err := usedSubnets()
	if err != nil {
		return netip.Prefix{}, err
	}
	old := st.Gateways[k]
	switch {
	case asked && overlaps(m.subnet, used):
		return netip.Prefix{}, fmt.Errorf("subnet %s collides with a route, an address or a name server of this host; choose another", m.subnet)
	case asked:
		return firstAddress(m.subnet), nil
	case old.IsValid() && !overlaps(old, used):
		return old, nil
	}
	return freeSubnet(m.name+" "+string(k), used)
}

// usedSubnets returns what a new subnet must not overlap: the destinations of
// the host's routes but the default one, its addresses, and its name servers,
// which a subnet around them would hide.
func usedSubnets() ([]netip.Prefix, error) {
	var used []netip.Prefix
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := fromIPNet(r.Dst); ok && p.Bits() > 0 {
			used = append(used, p)
		}
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := fromIPNet(a.IPNet); ok {
			used = append(used, p)
		}
	}
	return slices.Concat(used, nameServers()), nil
}

// nameServers returns the IPv4 name servers of /etc/resolv.conf. A file that
// cannot be read names none.
func nameServers() []netip.Prefix {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	var ps []netip.Prefix
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && a.Is4() {
			ps = append(ps, netip.PrefixFrom(a, 32))
		}
	}
	return ps
}

// fromIPNet returns n, with its host bits, as a Prefix.
func fromIPNet(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size != 32 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a.Unmap(), bits), true
}

// dump calls a function that lists things of the kernel again where they
// changed underneath it; a host on which they always do is not served.
func dump[T any](list func() ([]T, error)) (found []T, err error) {
	const tries = 10
	for range tries {
		found, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

// bootID names the time since the host was last started, or is empty.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// forwardingPath speaks for the network namespace of the caller.
const forwardingPath = "/proc/sys/net/ipv4/ip_forward"

// forwarding reports whether the host forwards IPv4.
func forwarding() (bool, error) {
	b, err := os.ReadFile(forwardingPath)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(b)) != "0", err // every other number turns it on
}

// setForwarding turns the host's forwarding on or off. It writes only what
// changes: a write resets settings of the devices too.
func setForwarding(on bool) error {
	is, err := forwarding()
	if err != nil || is == on {
		return err
	}
	b := []byte("0")
	if on {
		b = []byte("1")
	}
	return os.WriteFile(forwardingPath, b, 0)
}
