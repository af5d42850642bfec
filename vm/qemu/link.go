package qemu

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"

	"osx-builder/vm"
)

// wire is what machines are plugged into: QEMU's user network, which needs
// nothing of the host, or a bridge of the host's.
type wire interface {
	// name is "user" or "bridge".
	name() string

	// offers returns nil where there is a network of type t, and else an
	// *vm.Error that says why not.
	offers(t vm.NetworkType) error

	// plug makes ready what the machine's NIC is plugged into at its next
	// start. last is what it was plugged into before, which may be nothing.
	plug(ctx context.Context, m vm.Machine, last link) (link, error)
}

// link says what a machine's NIC is plugged into. It is kept in Machine.Dir:
// the daemon that asks may have another wire than the one that started it.
type link struct {
	Tap      string           `json:"tap,omitempty"`      // name of the host's device, or "" on the user network
	Forwards []vm.PortForward `json:"forwards,omitempty"` // of the user network
	Restrict bool             `json:"restrict,omitempty"` // the user network leads nowhere but to Forwards
}

// netdev is QEMU's option for the link.
func (l link) netdev() string {
	if l.Tap != "" {
		return "tap,id=net0,ifname=" + l.Tap + ",script=no,downscript=no"
	}
	option := "user,id=net0"
	if l.Restrict {
		option += ",restrict=on"
	}
	for _, f := range l.Forwards {
		option += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	return option
}

// macAddress is the machine's own, always the same: 0x52 marks it as locally
// administered and unicast, and the rest is the id's hash.
func macAddress(id string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(id))
	return net.HardwareAddr{0x52, sum[0], sum[1], sum[2], sum[3], sum[4]}
}
