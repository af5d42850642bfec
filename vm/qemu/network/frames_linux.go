package network

import (
	"errors"
	"maps"
	"net"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The offsets of fields in their headers: the source address and type of
// Ethernet, the sender of ARP (RFC 826, for IPv4 over Ethernet), the source of
// IPv4, and, counted from the UDP header, the client's address and hardware
// address of DHCP (ciaddr and chaddr of RFC 2131, section 2).
const (
	etherSource  = 6
	etherType    = 12
	arpHardware  = 8
	arpProtocol  = 14
	ipSource     = 12
	dhcpClient   = 8 + 12
	dhcpHardware = 8 + 28
)

const (
	dhcpServerPort   = 67
	dhcpv6ServerPort = 547
	routerAdvert     = 134 // ICMPv6 type, RFC 4861
)

// dhcpPerSecond is how many DHCP messages a guest may send: a boot needs a
// handful, and each makes dnsmasq write to its log and to its lease file.
const dhcpPerSecond = 5

// frameRules adds to t the rules for frames from a guest's tap. Every frame has the
// guest's own MAC address as its source, in ARP and in messages to a DHCP server
// too: a server believes the hardware address in the message, and would end the
// lease of the guest that it names. On managed networks only IPv4 and ARP pass,
// with the guest's own IPv4 address. No guest acts as a DHCP server or router.
//
// A fragment that is too short to show the fields that a rule compares matches
// no rule that accepts.
func (fw *firewall) frameRules(conn *nftables.Conn, t *nftables.Table, cards map[card]bool) error {
	sets := frameSetsOf(t)
	if err := sets.add(slices.Collect(maps.Keys(cards)), conn.AddSet); err != nil {
		return err
	}
	dhcp := &nftables.Set{
		Table: t, ID: 4, Name: "dhcp", KeyType: nftables.TypeIFName, Dynamic: true,
		KeyByteOrder: binaryutil.NativeEndian,
		Size:         65535, // as nft itself sets where none is asked for
	}
	if err := conn.AddSet(dhcp, nil); err != nil {
		return err
	}
	var (
		mac       = tuple(expr.PayloadBaseLLHeader, etherSource)
		arpSender = tuple(expr.PayloadBaseNetworkHeader, arpHardware)
		ip        = load(expr.PayloadBaseNetworkHeader, ipSource, 4, regThird)
		toServer  = udp(2, dhcpServerPort)
		chaddr    = tuple(expr.PayloadBaseTransportHeader, dhcpHardware)
		ciaddr    = load(expr.PayloadBaseTransportHeader, dhcpClient, 4, regThird)
		arpIP     = load(expr.PayloadBaseNetworkHeader, arpProtocol, 4, regThird)
		anyIP     = make([]byte, 4)
		noCiaddr  = field(expr.PayloadBaseTransportHeader, dhcpClient, anyIP)
		noSource  = field(expr.PayloadBaseNetworkHeader, ipSource, anyIP)
		isIP      = field(expr.PayloadBaseLLHeader, etherType, []byte{0x08, 0x00})
		isARP     = field(expr.PayloadBaseLLHeader, etherType, []byte{0x08, 0x06})
	)
	onLAN := rule{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}}.with(in(sets.lan))
	addChain(conn, t, chain{
		name: "prerouting",
		kind: nftables.ChainTypeFilter,
		hook: nftables.ChainHookPrerouting,
		prio: nftables.ChainPriorityRaw,
		rules: []rule{
			meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, []byte(fw.tapPrefix())).with(accept()),
			mac.with(notIn(sets.cards), drop()),
			udp(0, dhcpServerPort).with(drop()),
			udp(0, dhcpv6ServerPort).with(drop()),
			meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_ICMPV6}).
				with(field(expr.PayloadBaseTransportHeader, 0, []byte{routerAdvert}), drop()),
			isARP.with(arpSender, notIn(sets.cards), drop()),
			isIP.with(toServer, tooMany(dhcp), drop()),
			// On a LAN the guest's address is the LAN's to give; only the MAC is known.
			isIP.with(onLAN, toServer, chaddr, in(sets.cards), accept()),
			isIP.with(onLAN, toServer, drop()),
			onLAN.with(accept()),
			// A guest asks whether its address is free before it is its own.
			isARP.with(arpSender, in(sets.cards), field(expr.PayloadBaseNetworkHeader, arpProtocol, anyIP), accept()),
			isARP.with(arpSender, rule{arpIP}, in(sets.guests), accept()),
			isIP.with(noSource, toServer, noCiaddr, chaddr, in(sets.cards), accept()),
			isIP.with(mac, rule{ip}, in(sets.guests), toServer, noCiaddr, chaddr, in(sets.cards), accept()),
			isIP.with(mac, rule{ip}, in(sets.guests), toServer, chaddr, rule{ciaddr}, in(sets.guests), accept()),
			isIP.with(toServer, drop()),
			isIP.with(mac, rule{ip}, in(sets.guests), accept()),
			drop(),
		},
	})
	return nil
}

// frameSets are the sets that the rules look into: each tap with its card's
// MAC, those with the card's IPv4 address too, and the taps on a LAN. Their
// numbers are given here, as the library would count them in a variable that
// all connections share unguarded.
type frameSets struct{ cards, guests, lan *nftables.Set }

func frameSetsOf(t *nftables.Table) frameSets {
	return frameSets{
		cards: &nftables.Set{
			Table: t, ID: 1, Name: "cards", Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr),
		},
		guests: &nftables.Set{
			Table: t, ID: 2, Name: "guests", Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr),
		},
		lan: &nftables.Set{Table: t, ID: 3, Name: "lan", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian},
	}
}

// add adds the elements of the cards by f, which is AddSet or SetAddElements of
// a connection.
func (s frameSets) add(cards []card, f func(*nftables.Set, []nftables.SetElement) error) error {
	var cardKeys, guestKeys, lanKeys []nftables.SetElement
	for _, c := range cards {
		mac, err := net.ParseMAC(c.mac)
		if err != nil {
			return err
		}
		key := slices.Concat(deviceName(c.tap), mac, []byte{0, 0}) // fields begin at multiples of 4
		cardKeys = append(cardKeys, nftables.SetElement{Key: key})
		if c.kind == Bridged {
			lanKeys = append(lanKeys, nftables.SetElement{Key: deviceName(c.tap)})
			continue
		}
		guestKeys = append(guestKeys, nftables.SetElement{Key: slices.Concat(key, c.address.AsSlice())})
	}
	return errors.Join(f(s.cards, cardKeys), f(s.guests, guestKeys), f(s.lan, lanKeys))
}

// addCards adds cards to the sets, which are there.
func (fw *firewall) addCards(cards []card) error {
	conn, err := openNFTables()
	if err != nil {
		return err
	}
	sets := frameSetsOf(&nftables.Table{Name: fw.table(), Family: nftables.TableFamilyBridge})
	if err := sets.add(cards, conn.SetAddElements); err != nil {
		return err
	}
	return fw.ruleset.commit(conn, false)
}

// tuple loads the tap and a MAC address at offset of the packet, the beginning
// of what in looks up.
func tuple(base expr.PayloadBase, offset uint32) rule {
	return rule{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		load(base, offset, 6, regSecond),
	}
}

// in matches when s has what was loaded; notIn when it does not.
func in(s *nftables.Set) rule { return lookup(s, false) }

func notIn(s *nftables.Set) rule { return lookup(s, true) }

func lookup(s *nftables.Set, invert bool) rule {
	return rule{&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: invert}}
}

// tooMany matches frames of a tap that sends more than dhcpPerSecond, counted
// in s for each tap.
func tooMany(s *nftables.Set) rule {
	return rule{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Dynset{
			SrcRegKey: reg, SetName: s.Name, SetID: s.ID, Operation: uint32(unix.NFT_DYNSET_OP_ADD),
			Exprs: []expr.Any{&expr.Limit{
				Type: expr.LimitTypePkts, Rate: dhcpPerSecond, Unit: expr.LimitTimeSecond,
				Burst: 4 * dhcpPerSecond, Over: true,
			}},
		},
	}
}
