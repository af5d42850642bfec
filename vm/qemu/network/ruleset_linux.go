package network

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ruleset are the nftables rules of the host's network namespace. It knows
// whether anybody else has changed them, so that what is there need not be
// replaced: the kernel ends a transaction that deletes something only once no
// packet uses it any more, which takes 10 ms and more.
type ruleset struct {
	// generation is the kernel's ID of the ruleset after the last transaction, if all
	// transactions were ours since our tables of the firewall were written. Otherwise
	// it is 0, which the kernel leaves out.
	generation uint32
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
