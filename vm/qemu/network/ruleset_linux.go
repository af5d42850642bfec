package network

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// netlinkBuffer is the size in bytes of each buffer of a connection to nftables. That
// of the system, 208 KiB (net.core.wmem_default, rmem_default), holds the messages of 13
// guests and the acknowledgements of 4.
const netlinkBuffer = 4 << 20

// openNFTables opens a connection whose transactions may be large.
func openNFTables() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(netlinkBuffer), c.SetReadBuffer(netlinkBuffer))
	}))
}

// chainsOf returns all chains of a family, also those of others.
func chainsOf(f nftables.TableFamily) ([]*nftables.Chain, error) {
	conn, err := openNFTables()
	if err != nil {
		return nil, err
	}
	return conn.ListChainsOfTableFamily(f)
}

// ruleset are the nftables rules of the host's network namespace. It knows
// whether anybody else has changed them, so that what is there need not be
// replaced: the kernel ends a transaction that deletes something only once no
// packet uses it any more, which takes 10 ms and more.
type ruleset struct {
	// generation is the kernel's ID of the ruleset after the last transaction, if all
	// transactions were ours since our tables of the firewall were written. Otherwise
	// it is 0, which the kernel leaves out.
	generation uint32

	// others is how many transactions of ours found that somebody else may have changed
	// something before. The first one always does.
	others int
}

// untouched reports whether nobody else has changed anything since our tables of
// the firewall were written.
func (r *ruleset) untouched() (bool, error) {
	if r.generation == 0 {
		return false, nil
	}
	now, err := generationID()
	return now == r.generation, err
}

// commit makes the changes of conn in one transaction. whole says that they
// replace our tables of the firewall, so that earlier changes by others are gone.
func (r *ruleset) commit(conn *nftables.Conn, whole bool) error {
	before, err := generationID()
	if err != nil {
		return err
	}
	if before != r.generation {
		r.others++
	}
	known := whole || before == r.generation
	if err := conn.Flush(); err != nil {
		return err
	}
	r.generation = 0
	after, err := generationID()
	if known && after == before+1 {
		r.generation = after
	}
	return err
}

// generationID returns the ID of the ruleset in this network namespace, which each
// transaction increases by one (NFT_MSG_GETGEN in the kernel's linux/netfilter/nf_tables.h).
func generationID() (uint32, error) {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	answers, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("asking for the generation of the rules: %w", err)
	}
	for _, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			continue
		}
		attributes, err := nl.ParseRouteAttr(answer[nl.SizeofNfgenmsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attributes {
			if a.Attr.Type == unix.NFTA_GEN_ID && len(a.Value) >= 4 {
				return binary.BigEndian.Uint32(a.Value), nil
			}
		}
	}
	return 0, fmt.Errorf("the kernel does not tell the generation of the rules")
}
