package network

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// privateBlocks returns where subnets are looked for: RFC 1918's blocks, the
// largest first, as chance of a collision with a network that this host does
// not know yet is smallest there.
func privateBlocks() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
	}
}

// freeSubnet returns the gateway of a /24 that overlaps none of used. The same
// seed and the same used give the same answer.
func freeSubnet(seed string, used []netip.Prefix) (netip.Prefix, error) {
	start := number(seed)
	for _, block := range privateBlocks() {
		size := uint32(1) << (24 - block.Bits())
		for i := range size {
			subnet := netip.PrefixFrom(plus(block.Addr(), (start+i)%size<<8), 24)
			if !overlaps(subnet, used) {
				return firstAddress(subnet), nil
			}
		}
	}
	return netip.Prefix{}, errors.New("every private /24 collides with a route or address of this host")
}

// parseSubnet reads the subnet that the configuration asks for.
func parseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("subnet %q is not of the form 10.20.30.0/24", s)
	}
	if !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 {
		return netip.Prefix{}, fmt.Errorf("subnet %q must be IPv4 and between /8 and /29", s)
	}
	return p.Masked(), nil
}

// firstAddress returns the first address of subnet, which is the host's.
func firstAddress(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(plus(subnet.Masked().Addr(), 1), subnet.Bits())
}

// Addresses returns how many guests a managed network of kind k has addresses for. One is left for the address that guests
// which start from memory share.
func (m *Manager) Addresses(k Kind) int {
	bits := 24
	if k == NAT && m.subnet.IsValid() {
		bits = m.subnet.Bits()
	}
	return int(hosts(bits)) - 1
}

// hosts returns how many addresses a subnet has for guests: all but those of the network, the gateway and broadcasts.
func hosts(bits int) uint32 { return uint32(1)<<(32-bits) - 3 }

// freeAddress returns an address of gw's subnet for mac that is not in taken.
// The same mac gets the same one wherever that is free.
func freeAddress(gw netip.Prefix, mac string, taken map[netip.Addr]bool) (netip.Addr, error) {
	n := hosts(gw.Bits())
	start := number(mac)
	for i := range n {
		a := plus(gw.Masked().Addr(), 2+(start%n+i)%n)
		if a != gw.Addr() && !taken[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("every address of %s is taken; choose a larger subnet or destroy machines", gw.Masked())
}

func overlaps(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		if p.Overlaps(u) {
			return true
		}
	}
	return false
}

// number makes a number of s, the same always.
func number(s string) uint32 {
	sum := sha256.Sum256([]byte(s))
	return binary.BigEndian.Uint32(sum[:])
}

// plus returns the IPv4 address that lies n after a.
func plus(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}
