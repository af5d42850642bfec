package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The offsets of further fields in their headers: the destination address of
// Ethernet, the target of ARP, the destination of IPv4, and, counted from the
// UDP header, the address that a DHCP server assigns (yiaddr).
const (
	etherDestination = 0
	arpTargetHW      = 18
	arpTargetIP      = 24
	ipDestination    = 16
	dhcpAssigned     = 8 + 16
)

// The offsets of checksums in their headers, and of the fields that an ICMP error
// quotes, counted from the ICMP header. A quoted address and the checksum of the
// quoted header change by opposite amounts, so the checksum of the ICMP message
// stays right.
const (
	ipChecksum        = 10
	udpChecksum       = 6
	quotedChecksum    = 8 + ipChecksum
	quotedSource      = 8 + ipSource
	quotedDestination = 8 + ipDestination
)

// pseudoHeader makes the kernel update the checksum of TCP and UDP too, which
// covers the addresses of the IP header.
const pseudoHeader = unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR

// icmpErrors returns the types of ICMP messages that quote a packet (RFC 1122,
// section 3.2.2).
func icmpErrors() []byte { return []byte{3, 4, 5, 11, 12} }

// rewriting are the nftables tables of the family netdev that give each guest
// which was started from a template its own identity. There is one table for
// each such guest, bound to its tap. So the number of these guests does not
// matter when one of them starts.
type rewriting struct {
	names
	ruleset *ruleset

	// written is ruleset.others when the tables of all guests of a network were written last.
	written map[Kind]int
}

// tableName returns the name of the table for the tap.
func (w rewriting) tableName(tap string) string {
	return w.table() + "_" + strings.TrimPrefix(tap, w.tapPrefix())
}

// add writes the table of a guest whose inner identity differs from the outer
// one. Its tap must exist. A table that is there is replaced.
func (w rewriting) add(g guest) error {
	err := w.inTransactions([]guest{g}, func(conn *nftables.Conn, g guest) error {
		return w.fill(conn, conn.CreateTable(w.tableOf(g)), g)
	})
	if errors.Is(err, unix.EEXIST) {
		return w.replace(g)
	}
	return err
}

// replace is add for guests whose tables are there already.
func (w rewriting) replace(guests ...guest) error {
	return w.inTransactions(guests, func(conn *nftables.Conn, g guest) error {
		return w.fill(conn, w.emptyTable(conn, g), g)
	})
}

// repair writes the tables of all these guests, those of a network, if somebody else may have changed them
// since that was done last. Otherwise it writes those that lack a chain: Linux up to
// 6.15 removes the chains of a tap that is removed, and does not count that as a change.
func (w rewriting) repair(k Kind, guests []guest) error {
	if guests = rewritten(guests); len(guests) == 0 {
		return nil
	}
	others := w.ruleset.others
	if w.written[k] == others {
		list, err := chainsOf(nftables.TableFamilyNetdev)
		if err != nil {
			return err
		}
		chains := make(map[string]int) // by the name of their table
		for _, c := range list {
			chains[c.Table.Name]++
		}
		guests = slices.DeleteFunc(guests, func(g guest) bool { return chains[w.tableName(g.Tap)] == 2 })
	}
	err := w.replace(guests...)
	if err == nil {
		w.written[k] = others
	}
	return err
}

// fill adds the rules of the guest to its table, which is empty.
func (w rewriting) fill(conn *nftables.Conn, t *nftables.Table, g guest) error {
	mac, err := g.hardwareAddr()
	if err != nil {
		return err
	}
	innerMAC, err := net.ParseMAC(g.Inner.MAC)
	if err != nil {
		return err
	}
	if !g.Inner.Address.Is4() || !g.Address.Is4() {
		return fmt.Errorf("the addresses %s and %s of machine %s are not IPv4", g.Address, g.Inner.Address, g.ID)
	}
	inner := identity{innerMAC, g.Inner.Address}
	outer := identity{mac, g.Address}
	for _, c := range []chain{fromGuest(inner, outer), toGuest(outer, inner)} {
		nc := conn.AddChain(&nftables.Chain{
			Name: c.name, Table: t, Type: c.kind, Hooknum: c.hook, Priority: c.prio, Device: g.Tap,
		})
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: t, Chain: nc, Exprs: r})
		}
	}
	return nil
}

func (w rewriting) tableOf(g guest) *nftables.Table {
	return &nftables.Table{Name: w.tableName(g.Tap), Family: nftables.TableFamilyNetdev}
}

// emptyTable makes the table of the guest empty, whether it is there or not.
func (w rewriting) emptyTable(conn *nftables.Conn, g guest) *nftables.Table {
	t := w.tableOf(g)
	conn.AddTable(t)
	conn.DelTable(t)
	return conn.AddTable(t)
}

// remove removes the tables of guests that have an inner identity.
func (w rewriting) remove(guests ...guest) error {
	return w.inTransactions(guests, func(conn *nftables.Conn, g guest) error {
		conn.DelTable(w.emptyTable(conn, g))
		return nil
	})
}

// guestsPerTransaction bounds a transaction, which has some 40 messages with 16 KiB for
// each guest; see openNFTables.
const guestsPerTransaction = 32

// inTransactions applies do to the guests that have an inner identity. What it does to
// one guest is done in one transaction.
func (w rewriting) inTransactions(guests []guest, do func(*nftables.Conn, guest) error) error {
	for some := range slices.Chunk(rewritten(guests), guestsPerTransaction) {
		conn, err := openNFTables()
		if err != nil {
			return err
		}
		for _, g := range some {
			if err := do(conn, g); err != nil {
				return err
			}
		}
		if err := w.ruleset.commit(conn, false); err != nil {
			return err
		}
	}
	return nil
}

// rewritten returns the guests that have an inner identity.
func rewritten(guests []guest) []guest {
	return slices.DeleteFunc(slices.Clone(guests), func(g guest) bool { return g.Inner == nil })
}

// removeAll removes the tables of every guest, known or not.
func (w rewriting) removeAll() error {
	conn, err := openNFTables()
	if err != nil {
		return err
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a kernel without this family
	}
	if err != nil {
		return err
	}
	for _, t := range tables {
		if strings.HasPrefix(t.Name, w.table()+"_") {
			conn.DelTable(t)
		}
	}
	return conn.Flush()
}

// identity is how a card is known.
type identity struct {
	mac     net.HardwareAddr
	address netip.Addr
}

// fromGuest rewrites what the guest sends, before the bridge and its rules see
// it. IPv6 is dropped: guests of one template have the same link-local address.
func fromGuest(inner, outer identity) chain {
	mac, address := change{inner.mac, outer.mac}, change{inner.address.AsSlice(), outer.address.AsSlice()}
	return netdevChain("from-guest", nftables.ChainHookIngress, []rule{
		etherTypeIs(unix.ETH_P_IPV6).with(drop()),
		mac.at(expr.PayloadBaseLLHeader, etherSource, noChecksum),
		isARP().with(mac.at(expr.PayloadBaseNetworkHeader, arpHardware, noChecksum)),
		isARP().with(address.at(expr.PayloadBaseNetworkHeader, arpProtocol, noChecksum)),
		isARP().with(mac.at(expr.PayloadBaseNetworkHeader, arpTargetHW, noChecksum)),
		isARP().with(address.at(expr.PayloadBaseNetworkHeader, arpTargetIP, noChecksum)),
		isIPv4().with(address.at(expr.PayloadBaseNetworkHeader, ipSource, headerChecksums)),
	}, quoted(address, quotedDestination), dhcp(udp(2, dhcpServerPort), mac, address, dhcpClient))
}

// toGuest rewrites what the guest receives, after the bridge and its rules saw
// it.
func toGuest(outer, inner identity) chain {
	mac, address := change{outer.mac, inner.mac}, change{outer.address.AsSlice(), inner.address.AsSlice()}
	return netdevChain("to-guest", nftables.ChainHookEgress, []rule{
		etherTypeIs(unix.ETH_P_IPV6).with(drop()),
		mac.at(expr.PayloadBaseLLHeader, etherDestination, noChecksum),
		isARP().with(mac.at(expr.PayloadBaseNetworkHeader, arpTargetHW, noChecksum)),
		isARP().with(address.at(expr.PayloadBaseNetworkHeader, arpTargetIP, noChecksum)),
		isIPv4().with(address.at(expr.PayloadBaseNetworkHeader, ipDestination, headerChecksums)),
	}, quoted(address, quotedSource), dhcp(udp(0, dhcpServerPort), mac, address, dhcpClient, dhcpAssigned))
}

func netdevChain(name string, hook *nftables.ChainHook, rules ...[]rule) chain {
	c := chain{name: name, kind: nftables.ChainTypeFilter, hook: hook, prio: nftables.ChainPriorityFilter}
	for _, r := range rules {
		c.rules = append(c.rules, r...)
	}
	return c
}

// quoted rewrites the address in a packet that an ICMP error quotes. Otherwise
// the receiver would not find the connection that the error is about: a closed
// port would seem to be silent, and a narrow path would swallow an upload.
func quoted(address change, offset uint32) (rules []rule) {
	for _, kind := range icmpErrors() {
		rules = append(rules, isIPv4().with(
			meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_ICMP}),
			field(expr.PayloadBaseTransportHeader, 0, []byte{kind}),
			address.at(expr.PayloadBaseTransportHeader, offset, checksum{offset: quotedChecksum, update: true})))
	}
	return rules
}

// dhcp rewrites the card in DHCP messages, so that the guest can renew its lease
// as the outer identity. A UDP checksum of zero means that there is none.
func dhcp(match rule, mac, address change, addresses ...uint32) (rules []rule) {
	none := field(expr.PayloadBaseTransportHeader, udpChecksum, []byte{0, 0})
	some := rule{load(expr.PayloadBaseTransportHeader, udpChecksum, 2, reg), compare(expr.CmpOpNeq, []byte{0, 0})}
	for _, c := range []struct {
		match    rule
		checksum checksum
	}{{none, noChecksum}, {some, checksum{offset: udpChecksum, update: true}}} {
		m := isIPv4().with(match, c.match)
		for _, offset := range addresses {
			rules = append(rules, m.with(address.at(expr.PayloadBaseTransportHeader, offset, c.checksum)))
		}
		rules = append(rules, m.with(mac.at(expr.PayloadBaseTransportHeader, dhcpHardware, c.checksum)))
	}
	return rules
}

func isARP() rule  { return etherTypeIs(unix.ETH_P_ARP) }
func isIPv4() rule { return etherTypeIs(unix.ETH_P_IP) }

func etherTypeIs(kind uint16) rule {
	return field(expr.PayloadBaseLLHeader, etherType, []byte{byte(kind >> 8), byte(kind)})
}

// checksum is which checksum covers a field.
type checksum struct {
	offset uint32 // in the same header
	flags  uint32
	update bool
}

var (
	noChecksum      = checksum{}
	headerChecksums = checksum{offset: ipChecksum, flags: pseudoHeader, update: true}
)

// change replaces one value of a field by another.
type change struct{ from, to []byte }

// at returns the rule that makes the change in the field at offset.
func (c change) at(base expr.PayloadBase, offset uint32, sum checksum) rule {
	write := &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: reg, Base: base, Offset: offset, Len: uint32(len(c.to)),
	}
	if sum.update {
		write.CsumType, write.CsumOffset, write.CsumFlags = expr.CsumTypeInet, sum.offset, sum.flags
	}
	return field(base, offset, c.from).with(rule{&expr.Immediate{Register: reg, Data: bytes.Clone(c.to)}, write})
}
