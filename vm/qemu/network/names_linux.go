package network

import (
	"crypto/sha256"
	"net"
)

// names gives everything that a Manager creates on the host its name.
type names struct {
	name   string // [Config].Name
	tag    string // its hash, for names that are short
	bridge string // [Config].Bridge
}

// localMAC returns a locally administered unicast address made of first, whose
// two lowest bits must be 10, and s's hash.
func localMAC(first byte, s string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(s))
	return net.HardwareAddr{first, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// bridgeName is the device that guests of k are attached to.
func (n names) bridgeName(k Kind) string {
	switch k {
	case NAT:
		return prefix + n.tag + "-nat"
	case HostOnly:
		return prefix + n.tag + "-host"
	default:
		return n.bridge
	}
}

// tapName is the device of the guest's card with the address mac. Two cards
// share a name once in about a thousand million pairs; Attach then refuses.
func (n names) tapName(id, mac string) string {
	return prefix + n.tag + hashed(id+" "+mac, tapChars)
}

// tapPrefix begins the names of all taps of this Manager, and of nothing else
// but its bridges, which are no ports of a bridge.
func (n names) tapPrefix() string { return DevicePrefix(n.name) }

// table is the name of this Manager's nftables tables.
func (n names) table() string { return prefix + "_" + n.tag }
