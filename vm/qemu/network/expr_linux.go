package network

import (
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The kernel's registers for a value of one field, and for the second and third
// field of a value that begins with a device's name of 16 bytes.
const (
	reg       = unix.NFT_REG_1
	regSecond = unix.NFT_REG_2
	regThird  = unix.NFT_REG32_00 + 6
)

// rule is a chain of matches that ends in what is done.
type rule []expr.Any

// with returns the rule's matches and then those of more.
func (r rule) with(more ...rule) rule { return slices.Concat(append([]rule{r}, more...)...) }

func accept() rule { return rule{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() rule   { return rule{&expr.Verdict{Kind: expr.VerdictDrop}} }

// deviceName returns name as the kernel compares it: 16 bytes filled by zeroes.
func deviceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func compare(op expr.CmpOp, data []byte) expr.Any {
	return &expr.Cmp{Op: op, Register: reg, Data: data}
}

// from matches what came in by device; notFrom what did not.
func from(device string) rule { return meta(expr.MetaKeyIIFNAME, expr.CmpOpEq, deviceName(device)) }

func notFrom(device string) rule { return meta(expr.MetaKeyIIFNAME, expr.CmpOpNeq, deviceName(device)) }

// to matches what goes out by device; notTo what does not.
func to(device string) rule { return meta(expr.MetaKeyOIFNAME, expr.CmpOpEq, deviceName(device)) }

func notTo(device string) rule { return meta(expr.MetaKeyOIFNAME, expr.CmpOpNeq, deviceName(device)) }

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) rule {
	return rule{&expr.Meta{Key: key, Register: reg}, compare(op, data)}
}

// load puts a field of the packet into a register.
func load(base expr.PayloadBase, offset, length, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

// field matches a field of the packet.
func field(base expr.PayloadBase, offset uint32, data []byte) rule {
	return rule{load(base, offset, uint32(len(data)), reg), compare(expr.CmpOpEq, data)}
}

// sourceIn matches IPv4 packets from subnet.
func sourceIn(subnet netip.Prefix) rule {
	return rule{
		load(expr.PayloadBaseNetworkHeader, 12, 4, reg),
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: net.CIDRMask(subnet.Bits(), 32), Xor: make([]byte, 4),
		},
		compare(expr.CmpOpEq, subnet.Masked().Addr().AsSlice()),
	}
}

// destination matches IPv4 packets to a.
func destination(a netip.Addr) rule {
	return field(expr.PayloadBaseNetworkHeader, 16, a.AsSlice())
}

// reply matches packets of connections that went the other way first.
func reply() rule {
	mask := uint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return rule{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{
			SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4),
		},
		compare(expr.CmpOpNeq, make([]byte, 4)),
	}
}

// udp matches UDP packets by port; offset is 0 for the source's and 2 for the
// destination's.
func udp(offset uint32, port uint16) rule {
	return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_UDP}).
		with(field(expr.PayloadBaseTransportHeader, offset, binaryutil.BigEndian.PutUint16(port)))
}

// chain is a base chain to be.
type chain struct {
	name  string
	kind  nftables.ChainType
	hook  *nftables.ChainHook
	prio  *nftables.ChainPriority
	rules []rule
}

// addChain adds c with its rules to table t.
func addChain(conn *nftables.Conn, t *nftables.Table, c chain) {
	nc := conn.AddChain(&nftables.Chain{Name: c.name, Table: t, Type: c.kind, Hooknum: c.hook, Priority: c.prio})
	for _, r := range c.rules {
		conn.AddRule(&nftables.Rule{Table: t, Chain: nc, Exprs: r})
	}
}
