package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// errBridgedInner is the answer for guests whose address is not the daemon's to
// give.
var errBridgedInner = errors.New("on a bridged network the LAN assigns the addresses")

// Inner returns the inner identity of guests on the network k. No other guest
// ever gets its address. It stays the same until the network is removed or its
// subnet changes.
func (m *Manager) Inner(ctx context.Context, k Kind) (Inner, error) {
	if k == Bridged {
		return Inner{}, errBridgedInner
	}
	if err := m.Available(k); err != nil {
		return Inner{}, err
	}
	st, err := m.load() // without the lock, because the file is only ever replaced
	if err != nil {
		return Inner{}, err
	}
	if in := m.innerOf(st, k); in.Gateway.IsValid() && in.Gateway.Contains(in.Address) {
		return in, nil
	}
	end, err := m.beginChange(ctx)
	if err != nil {
		return Inner{}, err
	}
	defer end()
	if st, err = m.load(); err != nil {
		return Inner{}, err
	}
	if err := m.reserveInner(st, k); err != nil {
		return Inner{}, err
	}
	return m.innerOf(st, k), m.save(st)
}

// innerOf returns the inner identity as far as it is decided.
func (m *Manager) innerOf(st *state, k Kind) Inner {
	return Inner{MAC: m.innerMAC(k).String(), Address: st.Inner[k], Gateway: st.Gateways[k]}
}

func (n names) innerMAC(k Kind) net.HardwareAddr { return localMAC(0x52, n.name+" inner "+string(k)) }

// reserveInner chooses the address of the inner identity.
func (m *Manager) reserveInner(st *state, k Kind) error {
	gw, err := m.gateway(st, k)
	if err != nil {
		return fmt.Errorf("choosing the subnet of the %s network: %w", k, err)
	}
	st.Gateways[k] = gw
	if gw.Contains(st.Inner[k]) {
		return nil
	}
	taken := map[netip.Addr]bool{}
	for _, g := range st.attached(k) {
		taken[g.Address] = true
	}
	if st.Inner[k], err = freeAddress(gw, m.innerMAC(k).String(), taken); err != nil {
		return err
	}
	return nil
}

// AttachTemplate attaches the machine id whose memory others will be started
// from. It is [Manager.Attach] for a card with the inner identity, whose lease
// does not end. Only one machine of each kind can be attached so at a time.
func (m *Manager) AttachTemplate(ctx context.Context, k Kind, id string) (tap string, in Inner, err error) {
	if in, err = m.Inner(ctx, k); err != nil {
		return "", in, err
	}
	g, now, err := m.attach(ctx, guest{ID: id, MAC: in.MAC, Kind: k, Address: in.Address, Endless: true})
	if err == nil && (in != now || g.Address != in.Address) {
		err = innerChanged(k, in, now)
	}
	return g.Tap, in, err
}

// AttachInner is [Manager.Attach] for a guest that knows itself by the inner
// identity in, and returns the guest's address too. What the guest sends and
// receives is rewritten at its tap, so that everybody else sees the card mac and
// that address. A later Attach of the same card ends the rewriting.
func (m *Manager) AttachInner(ctx context.Context, k Kind, id string, mac net.HardwareAddr, name string, in Inner) (tap string, address netip.Addr, err error) {
	if k == Bridged {
		return "", netip.Addr{}, errBridgedInner
	}
	g, now, err := m.attach(ctx, guest{ID: id, Name: name, MAC: mac.String(), Kind: k, Inner: &in})
	if err == nil && in != now {
		err = innerChanged(k, in, now)
	}
	return g.Tap, g.Address, err
}

func innerChanged(k Kind, in, now Inner) error {
	return fmt.Errorf("the %s network has changed: the address of guests that start from memory was %s behind %s, and is %s behind %s now",
		k, in.Address, in.Gateway, now.Address, now.Gateway)
}
