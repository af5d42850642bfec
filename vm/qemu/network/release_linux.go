package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// endLeases gives back the leases that guests which are gone hold on k. st no
// longer has them, so their cards get no address again.
func (s *dhcpServers) endLeases(ctx context.Context, st *state, k Kind, gone []guest) error {
	gone = slices.DeleteFunc(slices.Clone(gone), func(g guest) bool { return g.Kind != k })
	if len(gone) == 0 {
		return nil
	}
	if _, err := s.writeHosts(st, k); err != nil {
		return err
	}
	ps, err := findProcesses(s.configArg(k))
	if err != nil {
		return err
	}
	defer closeAll(ps)
	if err := signal(ps, unix.SIGHUP); err != nil {
		return err
	}
	if len(ps) > 0 {
		err := s.releaseAll(ctx, k, st.Gateways[k].Addr(), gone)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.log.Warn("dnsmasq does not release leases; restarting it", "bridge", s.bridgeName(k), "err", err)
	}
	return s.restartWithoutLeases(ctx, st, k, gone)
}

// releaseAll releases the leases of gone from the dnsmasq that runs.
func (s *dhcpServers) releaseAll(ctx context.Context, k Kind, server netip.Addr, gone []guest) error {
	for _, g := range gone {
		if err := s.release(ctx, k, server, g); err != nil {
			return fmt.Errorf("releasing the lease of %s: %w", g.MAC, err)
		}
	}
	return nil
}

// restartWithoutLeases takes the leases of gone out of the file of a dnsmasq that does not
// run or does not listen, as after its bridge was deleted. It runs again
// afterwards if there is a bridge for it.
func (s *dhcpServers) restartWithoutLeases(ctx context.Context, st *state, k Kind, gone []guest) error {
	if err := s.stop(ctx, k); err != nil {
		return err
	}
	if err := s.removeLeases(k, gone); err != nil {
		return err
	}
	link, err := findLink(s.bridgeName(k))
	if err != nil || link == nil {
		return err
	}
	return s.ensure(ctx, st, k, link.Attrs().Index)
}

// release sends the dnsmasq of k a DHCPRELEASE in the name of g, and
// waits until the lease is gone. dnsmasq answers such a message by no word and
// may lose it, so it is sent again until its file shows that it was heard.
func (s *dhcpServers) release(ctx context.Context, k Kind, server netip.Addr, g guest) error {
	const (
		again    = 100 * time.Millisecond
		look     = 5 * time.Millisecond
		patience = time.Second
	)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("dnsmasq does not give the lease up"))
	defer cancel()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var sent time.Time
	for {
		held, err := s.leaseInFile(k, g.MAC)
		if err != nil || !held.IsValid() {
			return err
		}
		if time.Since(sent) >= again {
			if err := sendRelease(ctx, s.bridgeName(k), server, held, g); err != nil {
				return err
			}
			sent = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// holds returns the address that the lease file has for mac, ended or not.
func (s *dhcpServers) leaseInFile(k Kind, mac string) (netip.Addr, error) {
	ls, err := s.leases(k, time.Now())
	if err != nil {
		return netip.Addr{}, err
	}
	i := slices.IndexFunc(ls, func(l lease) bool { return l.mac == mac })
	if i >= 0 {
		return ls[i].address, nil
	}
	return s.leaseOf(k, mac) // reads again if the file is being written
}

// sendRelease sends a DHCPRELEASE (RFC 2131, 4.4.6) to server. The socket is
// bound to the bridge, so that the packet counts as one of the bridge's for a
// dnsmasq that checks the device: what a host sends to itself takes lo.
func sendRelease(ctx context.Context, bridge string, server, address netip.Addr, g guest) error {
	mac, err := g.hardwareAddr()
	if err != nil {
		return err
	}
	p, err := dhcpv4.New(
		dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease),
		dhcpv4.WithHwAddr(mac),
		dhcpv4.WithClientIP(address.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())),
	)
	if err != nil {
		return err
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var bindErr error
		err := c.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), bridge) })
		return errors.Join(err, bindErr)
	}}
	conn, err := d.DialContext(ctx, "udp4", netip.AddrPortFrom(server, dhcpv4.ServerPort).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(p.ToBytes())
	return err
}
