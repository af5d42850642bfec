package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// restoreChain is a chain without rules that stands in the tables of ours on a
// host whose forwarding one of us turned on. A daemon that goes while another
// stays leaves the chain in the other's table, and whichever goes last turns
// the forwarding off.
const restoreChain = "ip_forward_was_off"

// firewall are the nftables tables of one Manager: one that routes packets, and
// one that checks the frames of guests.
type firewall struct {
	names
	isolate bool // guests do not reach each other
	ruleset *ruleset
	written tables // what the tables are for, unless ruleset was touched
}

// tables is what the tables of a firewall depend on.
type tables struct {
	gateways map[Kind]netip.Prefix
	turnedOn bool
	cards    map[card]bool
}

// card is what the rules know of a guest's card.
type card struct {
	tap, mac string
	kind     Kind
	address  netip.Addr
}

func tablesFor(st *state) tables {
	all := tables{maps.Clone(st.Gateways), st.turnedOn(), map[card]bool{}}
	for _, g := range st.Guests {
		all.cards[card{g.Tap, g.MAC, g.Kind, g.Address}] = true
	}
	return all
}

// additions returns the cards that wanted has and t has not. ok is false if
// anything else differs.
func (t tables) additions(wanted tables) (more []card, ok bool) {
	if !maps.Equal(t.gateways, wanted.gateways) || t.turnedOn != wanted.turnedOn {
		return nil, false
	}
	for c := range t.cards {
		if !wanted.cards[c] {
			return nil, false
		}
	}
	for c := range wanted.cards {
		if !t.cards[c] {
			more = append(more, c)
		}
	}
	return more, true
}

// probeRules returns why the kernel has no nftables for us.
func probeRules() error {
	conn, err := openNFTables()
	if err != nil {
		return err
	}
	_, err = conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	return err
}

// write makes our tables be for st. If they are there as they were written, and
// lack no more than some guests, these are added.
func (fw *firewall) write(st *state) error {
	wanted := tablesFor(st)
	untouched, err := fw.ruleset.untouched()
	if err != nil {
		return err
	}
	more, ok := fw.written.additions(wanted)
	switch {
	case !ok || !untouched:
		err = fw.replace(st, wanted.cards)
	case len(more) > 0:
		err = fw.addCards(more)
		if untouched, _ = fw.ruleset.untouched(); err != nil || !untouched {
			err = fw.replace(st, wanted.cards) // somebody changed the tables meanwhile
		}
	}
	if err == nil {
		fw.written = wanted
	}
	return err
}

// replace writes both of our tables for st, in one transaction: there is
// never a moment without rules, and never a rule twice.
func (fw *firewall) replace(st *state, cards map[card]bool) error {
	conn, err := openNFTables()
	if err != nil {
		return err
	}
	route := fw.emptyTable(conn, nftables.TableFamilyIPv4)
	addChain(conn, route, fw.forwardChain(st))
	addChain(conn, route, fw.inputChain(st))
	if st.Gateways[NAT].IsValid() {
		addChain(conn, route, fw.masqueradeChain(st))
	}
	if st.turnedOn() {
		conn.AddChain(&nftables.Chain{Name: restoreChain, Table: route})
	}
	if err := fw.frameRules(conn, fw.emptyTable(conn, nftables.TableFamilyBridge), cards); err != nil {
		return err
	}
	return fw.ruleset.commit(conn, true)
}

// emptyTable makes our table of a family empty, whether it is there or not.
func (fw *firewall) emptyTable(conn *nftables.Conn, f nftables.TableFamily) *nftables.Table {
	t := &nftables.Table{Name: fw.table(), Family: f}
	conn.AddTable(t)
	conn.DelTable(t)
	return conn.AddTable(t)
}

// forwardChain lets guests of nat out and only replies in; hostonly has no way
// in or out. Its first rule for each is for packets between two guests, which
// pass here when the host routes them, or has bridges call iptables.
func (fw *firewall) forwardChain(st *state) chain {
	c := chain{
		name: "forward",
		kind: nftables.ChainTypeFilter,
		hook: nftables.ChainHookForward,
		prio: nftables.ChainPriorityFilter,
	}
	between := accept()
	if fw.isolate {
		between = drop()
	}
	if st.Gateways[HostOnly].IsValid() {
		b := fw.bridgeName(HostOnly)
		c.rules = append(c.rules, from(b).with(to(b), between), from(b).with(drop()), to(b).with(drop()))
	}
	if st.Gateways[NAT].IsValid() {
		b := fw.bridgeName(NAT)
		c.rules = append(c.rules, from(b).with(to(b), between), to(b).with(reply(), accept()), to(b).with(drop()))
	}
	return c
}

// inputChain keeps our gateways, and with them dnsmasq, for our own guests and
// the host: the kernel takes packets to any of its addresses on every device.
func (fw *firewall) inputChain(st *state) chain {
	c := chain{
		name: "input",
		kind: nftables.ChainTypeFilter,
		hook: nftables.ChainHookInput,
		prio: nftables.ChainPriorityFilter,
	}
	for _, k := range st.managed() {
		c.rules = append(c.rules,
			destination(st.Gateways[k].Addr()).with(notFrom(fw.bridgeName(k)), notFrom("lo"), drop()))
	}
	return c
}

// masqueradeChain gives what guests of nat send out the host's own address.
func (fw *firewall) masqueradeChain(st *state) chain {
	return chain{
		name: "postrouting",
		kind: nftables.ChainTypeNAT,
		hook: nftables.ChainHookPostrouting,
		prio: nftables.ChainPriorityNATSource,
		rules: []rule{
			sourceIn(st.Gateways[NAT]).with(notTo(fw.bridgeName(NAT)), rule{&expr.Masq{}}),
		},
	}
}

// recordForwarding writes into st whether the host's forwarding is to be turned
// off when the last of us goes: it is off now, or one of us turned it on. A
// host on which someone else turned it off meanwhile counts as one with forwarding off.
func (fw *firewall) recordForwarding(st *state) error {
	on, err := forwarding()
	if err != nil {
		return err
	}
	if !on {
		st.ForwardingOff = bootID()
		return nil
	}
	chains, err := chainsOf(nftables.TableFamilyIPv4)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.Name == restoreChain && ours(c.Table) {
			st.ForwardingOff = bootID()
		}
	}
	return nil
}

// ours reports whether t belongs to this daemon or another of its kind.
func ours(t *nftables.Table) bool { return strings.HasPrefix(t.Name, prefix+"_") }

// remove removes our tables. If one of us turned the host's forwarding on,
// it is turned off, unless another table translates addresses by then: whoever
// wrote that needs the forwarding too. A daemon of ours then inherits the task.
func (fw *firewall) remove(st *state) error {
	const tries = 5 // another daemon may remove its table after it was listed
	var err error
	for range tries {
		if err = fw.tryRemove(st); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return err
}

func (fw *firewall) tryRemove(st *state) error {
	conn, err := openNFTables()
	if err != nil {
		return err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return err
	}
	restore, found := st.turnedOn(), map[nftables.TableFamily]bool{}
	var needing []*nftables.Table
	for _, c := range chains {
		switch {
		case c.Table.Name == fw.table():
			found[c.Table.Family] = true
			restore = restore || c.Name == restoreChain
		case c.Type == nftables.ChainTypeNAT && hooked(c, nftables.ChainHookPostrouting):
			needing = append(needing, c.Table)
		}
	}
	for f := range found {
		conn.DelTable(&nftables.Table{Name: fw.table(), Family: f})
	}
	for _, t := range needing {
		if restore && ours(t) {
			conn.AddChain(&nftables.Chain{Name: restoreChain, Table: t})
		}
	}
	if err := conn.Flush(); err != nil || !restore || len(needing) > 0 {
		return err
	}
	return setForwarding(false)
}

func hooked(c *nftables.Chain, h *nftables.ChainHook) bool {
	return c.Hooknum != nil && *c.Hooknum == *h
}

// warnings lists which firewalls of this host may drop what guests send or get,
// and what to do about each: a table of ours cannot let pass what another one
// drops, and other people's tables are not ours to change.
func (fw *firewall) warnings() ([]string, error) {
	if !permitted() {
		return nil, nil
	}
	conn, err := openNFTables()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	var ws []string
	for _, c := range chains {
		ipv4 := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet
		if !ipv4 || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
			continue
		}
		where := fmt.Sprintf("chain %s of nftables table %s", c.Name, c.Table.Name)
		switch b := fw.bridgeName(NAT); {
		case hooked(c, nftables.ChainHookForward):
			ws = append(ws, fmt.Sprintf("%s drops what it does not know; unless it knows %s, nat guests reach neither out nor, where bridges call iptables, each other: "+
				"accept what comes from %s, and replies to it (with Docker: iptables -I DOCKER-USER -i %s -j ACCEPT; "+
				"iptables -I DOCKER-USER -o %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT)", where, b, b, b, b))
		case hooked(c, nftables.ChainHookInput):
			ws = append(ws, fmt.Sprintf("%s drops what it does not know; unless it knows %s, guests get no address: "+
				"accept UDP ports 67 and 53 and TCP port 53 from %s* (with ufw: ufw allow in on %s)", where, b, fw.tapPrefix(), b))
		}
	}
	return ws, nil
}
