package network

import (
	"crypto/sha256"
	"encoding/base32"
	"net"
	"strings"
)

// Linux cuts names of devices at 15 characters: "osxb", 5 of the tag and 6 of
// the guest are all that fits.
const (
	prefix   = "osxb"
	tagChars = 5
	tapChars = 6
)

// hashed returns the first n (at most 52) characters of s's hash, all of them
// lower-case letters and digits.
func hashed(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:n]
}

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
func (m *Manager) tapPrefix() string { return prefix + m.tag }

// table is the name of this Manager's nftables tables.
func (m *Manager) table() string { return prefix + "_" + m.tag }
