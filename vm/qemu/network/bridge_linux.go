package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mtu is the MTU of managed bridges. If the path out is narrower, the host informs
// the guest by ICMP.
const mtu = 1500

// devices are the bridges and taps of one Manager.
type devices struct {
	names
	isolate bool // guests do not reach each other
}

// ensureBridge returns the index of k's bridge, which is up, has the address
// gw and takes part in no spanning tree (the kernel's default for a new one).
func (d *devices) ensureBridge(k Kind, gw netip.Prefix) (int, error) {
	name := d.bridgeName(k)
	link, err := findLink(name)
	if err != nil {
		return 0, err
	}
	if link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		attrs.MTU = mtu
		// A bridge that was given an address keeps it; else it would take
		// the lowest of its taps', and change with them.
		attrs.HardwareAddr = localMAC(0x02, name)
		link = &netlink.Bridge{LinkAttrs: attrs}
		if err := netlink.LinkAdd(link); err != nil {
			return 0, err
		}
	}
	if err := ensureOwned(link, "bridge", d.name); err != nil {
		return 0, err
	}
	if err := noIPv6(name); err != nil {
		return 0, err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   gw.Addr().AsSlice(),
		Mask: net.CIDRMask(gw.Bits(), 32),
	}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return 0, err
	}
	return link.Attrs().Index, netlink.LinkSetUp(link)
}

// ensureOwned makes sure that a device is of the kind that a Manager creates
// under its name, and has the alias that shows people who owns it.
func ensureOwned(link netlink.Link, kind, alias string) error {
	a := link.Attrs()
	if link.Type() != kind || (a.Alias != "" && a.Alias != alias) {
		return fmt.Errorf("a %s of that name exists and belongs to %q", link.Type(), a.Alias)
	}
	if a.Alias == alias {
		return nil
	}
	return netlink.LinkSetAlias(link, alias)
}

// bridgeAddress returns the address of k's bridge, or the zero Prefix.
func (d *devices) bridgeAddress(k Kind) (netip.Prefix, error) {
	link, err := findLink(d.bridgeName(k))
	if err != nil || link == nil {
		return netip.Prefix{}, err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) })
	if err != nil || len(addrs) == 0 {
		return netip.Prefix{}, err
	}
	p, _ := fromIPNet(addrs[0].IPNet)
	return p, nil
}

// ensureTap makes g's tap and puts it on g's bridge.
func (d *devices) ensureTap(g guest) error {
	bridge, err := netlink.LinkByName(d.bridgeName(g.Kind))
	if err != nil {
		return err
	}
	link, err := findLink(g.Tap)
	if err != nil {
		return err
	}
	if link == nil {
		link, err = makeTap(g.Tap)
		if err != nil {
			return err
		}
	}
	if err := ensureOwned(link, "tuntap", g.ID); err != nil {
		return err
	}
	if err := noIPv6(g.Tap); err != nil {
		return err
	}
	// A bridge takes the smallest MTU of its ports: the host's must not shrink.
	if err := netlink.LinkSetMTU(link, bridge.Attrs().MTU); err != nil {
		return err
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetIsolated(link, d.isolate); err != nil {
		return fmt.Errorf("isolating its port: %w", err)
	}
	return netlink.LinkSetUp(link)
}

// ensureTaps plugs in the guests of k. If a tap cannot be created, the other
// guests are plugged in all the same.
func (d *devices) ensureTaps(st *state, k Kind) error {
	var errs []error
	for _, g := range st.attached(k) {
		if err := d.ensureTap(g); err != nil {
			errs = append(errs, fmt.Errorf("setting up tap %s of machine %s: %w", g.Tap, g.ID, err))
		}
	}
	return errors.Join(errs...)
}

// makeTap makes a persistent tap that this process's user may open. Its own
// address begins with fe, so that a bridge of the host's that takes the lowest
// one of its ports does not take this one.
func makeTap(name string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err := netlink.LinkAdd(&netlink.Tuntap{
		LinkAttrs: attrs,
		Mode:      netlink.TUNTAP_MODE_TAP,
		Flags:     netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
		Owner:     uint32(os.Geteuid()),
		Group:     uint32(os.Getegid()),
	})
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	return link, netlink.LinkSetHardwareAddr(link, localMAC(0xfe, name))
}

// removeTaps removes the taps of this Manager that are not of st's guests.
func (d *devices) removeTaps(st *state) error {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, g := range st.Guests {
		wanted[g.Tap] = true
	}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "tuntap" || !strings.HasPrefix(name, d.tapPrefix()) || wanted[name] {
			continue
		}
		if err := removeLink(name); err != nil {
			return fmt.Errorf("removing tap %s: %w", name, err)
		}
	}
	return nil
}

// neighbour returns the IPv4 address that the host last spoke to mac at.
func (d *devices) neighbour(mac net.HardwareAddr) (netip.Addr, error) {
	link, err := findLink(d.bridge)
	if err != nil || link == nil {
		return netip.Addr{}, err
	}
	ns, err := dump(func() ([]netlink.Neigh, error) {
		return netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
	})
	if err != nil {
		return netip.Addr{}, err
	}
	for _, n := range ns {
		if n.HardwareAddr.String() == mac.String() && n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) == 0 {
			a, _ := netip.AddrFromSlice(n.IP)
			return a.Unmap(), nil
		}
	}
	return netip.Addr{}, nil
}

// findLink returns the device called name, or nil.
func findLink(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	return l, err
}

// removeLink removes the device called name if there is one.
func removeLink(name string) error {
	l, err := findLink(name)
	if err != nil || l == nil {
		return err
	}
	return netlink.LinkDel(l)
}

// noIPv6 keeps the host from speaking IPv6 on the device called name. A kernel
// without IPv6 has nothing to turn off.
func noIPv6(name string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
