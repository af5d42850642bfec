package network

import (
	"crypto/sha256"
	"net"
)

// localMAC returns a locally administered unicast address made of first, whose
// two lowest bits must be 10, and s's hash.
func localMAC(first byte, s string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(s))
	return net.HardwareAddr{first, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// bridgeName is the device that guests of k are attached to.
func (m *Manager) bridgeName(k Kind) string {
	switch k {
	case NAT:
		return prefix + m.tag + "-nat"
	case HostOnly:
		return prefix + m.tag + "-host"
	default:
		return m.bridge
	}
}

// tapName is the device of the guest's card with the address mac. Two cards
// share a name once in about a thousand million pairs; Attach then refuses.
func (m *Manager) tapName(id, mac string) string {
	return prefix + m.tag + hashed(id+" "+mac, tapChars)
}

// tapPrefix begins the names of all taps of this Manager, and of nothing else
// but its bridges, which are no ports of a bridge.
func (m *Manager) tapPrefix() string { return DevicePrefix(m.name) }

// table is the name of this Manager's nftables tables.
func (m *Manager) table() string { return prefix + "_" + m.tag }
