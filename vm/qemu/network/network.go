// Package network gives guests an address at which their host reaches them: it
// keeps Linux bridges with DHCP and DNS by a dnsmasq of its own, a tap per
// guest, and nftables tables of its own that lead guests out and keep others
// from coming in.
//
// What it makes on the host is named osxb and a tag of the daemon's data
// folder, so several daemons live side by side. It is set up when a guest first
// needs it, outlives the daemon, and is found again by its names and by the
// files in Config.Dir:
//
//	network.json        subnets, and the address of each guest
//	nat/, hostonly/     dnsmasq.conf, leases, dnsmasq.log and dnsmasq.pid
//
// Other people's bridges, tables and dnsmasqs are never touched.
package network

import (
	"log/slog"
	"net/netip"
)

// Kind is what a guest's card is attached to, in VMware's words.
type Kind string

// The kinds of network.
const (
	NAT      Kind = "nat"      // own subnet; guests reach out behind the host's address
	HostOnly Kind = "hostonly" // own subnet; guests reach the host and each other, no more
	Bridged  Kind = "bridged"  // a bridge of the host's; addresses come from its LAN
)

// Config configures a [Manager].
type Config struct {
	Dir     string // absolute; the Manager owns all that is in it
	Name    string // distinguishes this daemon from others on the host: its data folder
	Subnet  string // the nat network's, such as 10.20.30.0/24; empty: a free /24 is chosen
	Isolate bool   // guests do not reach each other
	Bridge  string // the host's bridge for Bridged; empty: there is none
	Log     *slog.Logger
}

// Inner is how guests that are started from memory know themselves. They all
// have the card and the address of the guest that the memory was taken from.
type Inner struct {
	MAC     string       `json:"mac"` // six lower-case hex pairs with colons
	Address netip.Addr   `json:"address"`
	Gateway netip.Prefix `json:"gateway"` // the host's address on the bridge, with the length of the subnet
}
