package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"
)

// Manager keeps the networks of one daemon. Its methods may be called at once,
// and repeated after an interruption at any point.
type Manager struct {
	names
	dir       string
	subnet    netip.Prefix // from the configuration, or zero
	log       *slog.Logger
	devices   *devices
	servers   *dhcpServers
	firewall  *firewall
	rewriting rewriting

	// change holds one value while a verb changes the host's network. Each looks
	// at what is there and adds what is missing, and a second one must not do so
	// in between. It takes as long as dnsmasq takes to start, so whoever waits
	// for it stops waiting when its context ends. Address goes without.
	change chan struct{}
}

// Open returns a Manager of the networks that c describes. It touches nothing:
// what an earlier run left is found, and what is missing is set up, when a
// guest first needs it.
func Open(c Config) (*Manager, error) {
	if !filepath.IsAbs(c.Dir) {
		return nil, fmt.Errorf("the networks' folder %q is not an absolute path", c.Dir)
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n := names{name: c.Name, tag: hashed(c.Name, tagChars), bridge: c.Bridge}
	dir := filepath.Clean(c.Dir)
	rules := &ruleset{}
	m := &Manager{
		names: n, dir: dir, log: log,
		devices:   &devices{n, c.Isolate},
		servers:   &dhcpServers{n, dir, log},
		firewall:  &firewall{names: n, isolate: c.Isolate, ruleset: rules},
		rewriting: rewriting{n, rules, make(map[Kind]int)},
		change:    make(chan struct{}, 1),
	}
	if c.Subnet != "" {
		p, err := parseSubnet(c.Subnet)
		if err != nil {
			return nil, err
		}
		m.subnet = p
	}
	return m, nil
}

// beginChange waits until no other verb changes the host's network, and returns
// the function that ends the caller's own change.
func (m *Manager) beginChange(ctx context.Context) (end func(), err error) {
	select {
	case m.change <- struct{}{}:
		return func() { <-m.change }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another change of the networks: %w", context.Cause(ctx))
	}
}

// Attach returns the tap for the card mac of the machine id, which QEMU opens
// by its name with script=no and downscript=no. The tap is persistent and up,
// on a bridge of kind k that has its address, its DHCP server and its rules.
// The card's address is fixed from the first Attach to Detach, also across
// restarts. Of a card that is attached already it repairs what is missing. name
// is an RFC 1123 label, by which the guests of managed networks find the machine
// in the DNS, or "".
func (m *Manager) Attach(ctx context.Context, k Kind, id string, mac net.HardwareAddr, name string) (string, error) {
	g, _, err := m.attach(ctx, guest{ID: id, Name: name, MAC: mac.String(), Kind: k})
	return g.Tap, err
}

// attach attaches a card as wanted describes it, and returns it as it is attached
// together with the inner identity of its network. A card that is attached
// already keeps its address.
func (m *Manager) attach(ctx context.Context, wanted guest) (guest, Inner, error) {
	none := func(err error) (guest, Inner, error) { return guest{}, Inner{}, err }
	k := wanted.Kind
	if err := m.Available(k); err != nil {
		return none(err)
	}
	if mac, err := wanted.hardwareAddr(); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return none(fmt.Errorf("MAC address %q is not that of an Ethernet card", wanted.MAC))
	}
	end, err := m.beginChange(ctx)
	if err != nil {
		return none(err)
	}
	defer end()
	st, err := m.load()
	if err != nil {
		return none(err)
	}
	before, err := m.admit(st, &wanted)
	if err != nil {
		return none(err)
	}
	if err := m.prepare(st, k); err != nil {
		return none(err)
	}
	if err := m.converge(ctx, st, k); err != nil {
		return none(fmt.Errorf("setting up the %s network: %w", k, err))
	}
	if k == NAT && st.has(HostOnly, wanted.ID) {
		// The DNS server of hostonly is not for this machine any more; see writeHosts.
		if err := m.converge(ctx, st, HostOnly); err != nil {
			return none(fmt.Errorf("setting up the %s network: %w", HostOnly, err))
		}
	}
	g := *st.find(wanted.MAC)
	if err := m.devices.ensureTap(g); err != nil {
		return none(fmt.Errorf("setting up tap %s: %w", g.Tap, err))
	}
	if g.Inner == nil && before.Inner != nil {
		err = m.rewriting.remove(before)
	} else {
		err = m.rewriting.add(g)
	}
	if err != nil {
		return none(fmt.Errorf("rewriting the addresses at tap %s: %w", g.Tap, err))
	}
	return g, m.innerOf(st, k), nil
}

// admit puts the card g into st, with a tap of its own, and returns how the card
// was attached before.
func (m *Manager) admit(st *state, g *guest) (before guest, err error) {
	g.Tap = m.tapName(g.ID, g.MAC)
	if was := st.find(g.MAC); was != nil {
		if was.ID != g.ID || was.Kind != g.Kind {
			return guest{}, fmt.Errorf("MAC address %s is attached to the %s network by machine %s already", g.MAC, was.Kind, was.ID)
		}
		before = *was
		g.Tap, g.Address = was.Tap, was.Address
		*was = *g
		return before, nil
	}
	if slices.ContainsFunc(st.Guests, func(other guest) bool { return other.Tap == g.Tap }) {
		return guest{}, fmt.Errorf("MAC address %s of machine %s gives a tap name that is taken; choose another", g.MAC, g.ID)
	}
	st.Guests = append(st.Guests, *g)
	return guest{}, nil
}

// prepare decides all that is decided once about network k, and writes it down
// before anything is done about it.
func (m *Manager) prepare(st *state, k Kind) error {
	if k == NAT {
		if err := m.firewall.recordForwarding(st); err != nil {
			return err
		}
	}
	if err := m.assign(st, k); err != nil {
		return err
	}
	return m.save(st)
}

// Repair puts right what others removed: a bridge, a tap's place on it, a
// dnsmasq, a table. Without guests it does nothing.
func (m *Manager) Repair(ctx context.Context) error {
	end, err := m.beginChange(ctx)
	if err != nil {
		return err
	}
	defer end()
	st, err := m.load()
	if err != nil || len(st.Guests) == 0 {
		return err
	}
	var errs []error
	for _, k := range []Kind{NAT, HostOnly, Bridged} {
		if len(st.attached(k)) == 0 {
			continue
		}
		err := m.prepare(st, k)
		if err == nil {
			err = m.converge(ctx, st, k)
		}
		if err == nil {
			err = m.devices.ensureTaps(st, k)
		}
		if err == nil {
			err = m.rewriting.repair(k, st.attached(k))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("setting up the %s network: %w", k, err))
		}
	}
	return errors.Join(errs...)
}

// converge makes the host as st says, as far as network k goes, but for the
// taps: these come after the rules, so no guest is ever on a bridge without.
func (m *Manager) converge(ctx context.Context, st *state, k Kind) error {
	if k != Bridged {
		index, err := m.devices.ensureBridge(k, st.Gateways[k])
		if err != nil {
			return fmt.Errorf("setting up bridge %s: %w", m.bridgeName(k), err)
		}
		if err := m.servers.ensure(ctx, st, k, index); err != nil {
			return fmt.Errorf("starting dnsmasq on %s: %w", m.bridgeName(k), err)
		}
	}
	if err := m.firewall.write(st); err != nil {
		return fmt.Errorf("writing nftables table %s: %w", m.table(), err)
	}
	if k == NAT {
		if err := setForwarding(true); err != nil {
			return fmt.Errorf("turning on IPv4 forwarding: %w", err)
		}
	}
	return nil
}

// Address returns the address at which the card mac is reached now: that of
// its lease or, on a bridge of the host's, that which the host's neighbour
// table knows. It is the zero Addr while there is none. Cheap.
func (m *Manager) Address(mac net.HardwareAddr) (netip.Addr, error) {
	for _, k := range []Kind{NAT, HostOnly} {
		a, err := m.servers.leaseOf(k, mac.String())
		if err != nil || a.IsValid() {
			return a, err
		}
	}
	if m.bridge == "" {
		return netip.Addr{}, nil
	}
	return m.devices.neighbour(mac)
}

// Taken reports whether the address a belongs to another card than mac.
func (m *Manager) Taken(a netip.Addr, mac net.HardwareAddr) (bool, error) {
	st, err := m.load()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(st.Guests, func(g guest) bool { return g.Address == a && g.MAC != mac.String() }), nil
}

// Detach takes the machine id off its networks: its taps are gone, its leases
// and addresses given back. Without any of these it does nothing.
func (m *Manager) Detach(ctx context.Context, id string) error {
	return m.Sweep(ctx, func(other string) bool { return other != id })
}

// Sweep detaches every machine that known denies, and removes taps of this
// Manager that belong to no machine.
func (m *Manager) Sweep(ctx context.Context, known func(id string) bool) error {
	end, err := m.beginChange(ctx)
	if err != nil {
		return err
	}
	defer end()
	st, err := m.load()
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(slices.Clone(st.Guests), func(g guest) bool { return known(g.ID) })
	st.Guests = slices.DeleteFunc(st.Guests, func(g guest) bool { return !known(g.ID) })
	if err := m.devices.removeTaps(st); err != nil {
		return err
	}
	if len(gone) == 0 {
		return nil
	}
	if err := m.rewriting.remove(gone...); err != nil {
		return fmt.Errorf("ending the rewriting of addresses: %w", err)
	}
	for _, k := range st.managed() {
		if err := m.servers.endLeases(ctx, st, k, gone); err != nil {
			return fmt.Errorf("giving back leases on %s: %w", m.bridgeName(k), err)
		}
	}
	if st.Gateways[NAT].IsValid() {
		if err := m.firewall.recordForwarding(st); err != nil { // a daemon that went may have left us the task
			return err
		}
	}
	if err := m.firewall.write(st); err != nil {
		return fmt.Errorf("writing nftables table %s: %w", m.table(), err)
	}
	return m.save(st)
}

// Warnings lists the firewalls of this host that may drop what guests send or
// receive, each with the way out: no table of this Manager can let pass what
// another one drops, and other people's tables are not changed.
func (m *Manager) Warnings() ([]string, error) { return m.firewall.warnings() }

// Clean removes all that this Manager ever made on the host, also under guests
// that run: they lose their network.
func (m *Manager) Clean(ctx context.Context) error {
	end, err := m.beginChange(ctx)
	if err != nil {
		return err
	}
	defer end()
	return m.clean(ctx)
}

// Close removes all that this Manager made on the host unless a guest is still
// attached: guests outlive the daemon, and so does then all that they need.
func (m *Manager) Close() error {
	const deadline = 10 * time.Second // a dnsmasq that does not end on SIGTERM takes 2 or so
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	end, err := m.beginChange(ctx)
	if err != nil {
		return err
	}
	defer end()
	st, err := m.load()
	if err != nil || len(st.Guests) > 0 {
		return err
	}
	return m.clean(ctx)
}
