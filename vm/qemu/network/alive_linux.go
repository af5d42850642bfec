package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Alive returns nil once the card mac, which is attached to the network k, answers
// at the address. It asks by ARP, which every guest answers whatever its firewall
// says. If ctx ends before, it returns the cause of that.
func (m *Manager) Alive(ctx context.Context, k Kind, address netip.Addr, mac net.HardwareAddr) error {
	const (
		look  = 3 * time.Millisecond
		again = 100 * time.Millisecond
	)
	link, err := netlink.LinkByName(m.bridgeName(k))
	if err != nil {
		return err
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var asked time.Time
	for {
		known, err := neighbourOf(link.Attrs().Index, address)
		if err != nil {
			return err
		}
		if !asked.IsZero() && known != nil && known.State&unix.NUD_REACHABLE != 0 && known.HardwareAddr.String() == mac.String() {
			return nil
		}
		if time.Since(asked) >= again {
			if known != nil { // the kernel itself would ask again only after a second
				_ = netlink.NeighDel(known) // it may have gone by itself
			}
			if err := askByARP(link.Attrs().Index, address, mac); err != nil {
				return err
			}
			asked = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// neighbourOf returns the host's entry for the address, or nil.
func neighbourOf(index int, address netip.Addr) (*netlink.Neigh, error) {
	all, err := dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(index, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("listing neighbours: %w", err)
	}
	for _, n := range all {
		if a, _ := netip.AddrFromSlice(n.IP); a.Unmap() == address {
			return &n, nil
		}
	}
	return nil, nil
}

// askByARP makes the kernel ask the card whether it still has the address (NUD_PROBE in linux/neighbour.h). It asks this
// card alone: a broadcast would wake every guest on the bridge. No packet follows: the guest has enough to do when it
// continues.
func askByARP(link int, address netip.Addr, mac net.HardwareAddr) error {
	err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link, Family: netlink.FAMILY_V4, State: netlink.NUD_PROBE, IP: address.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("asking for the card of %v: %w", address, err)
	}
	return nil
}
