package qemu

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/network"
	"osx-builder/vm/qemu/process"
)

// sshPort is forwarded to every guest on the user network.
const sshPort = 22

// attachment says what a machine's NIC is attached to.
type attachment struct {
	Inner    *network.Inner   `json:"inner,omitempty"`    // how the guest knows itself, if it runs from memory
	Address  netip.Addr       `json:"address,omitzero"`   // of the guest, if it runs from memory
	Tap      string           `json:"tap,omitempty"`      // name of the host's device, or "" on the user network
	Forwards []vm.PortForward `json:"forwards,omitempty"` // of the user network
	Restrict bool             `json:"restrict,omitempty"` // the user network leads nowhere but to Forwards
}

// attachments says what a machine's NICs are attached to. It is kept in
// Machine.Dir, because the daemon that reads it may have another network
// backend than the daemon that started the machine.
type attachments struct {
	attachment              // of the first NIC, the only one in earlier versions
	Others     []attachment `json:"others,omitempty"`
}

// of returns the attachment of the NIC with index i, or the zero attachment.
func (a attachments) of(i int) attachment {
	switch {
	case i == 0:
		return a.attachment
	case i <= len(a.Others):
		return a.Others[i-1]
	}
	return attachment{}
}

// attach makes the attachments of the machine's NICs, writes them down for
// Inspect and returns them.
func (n *networks) attach(ctx context.Context, m vm.Machine, nics []nic) (all attachments, err error) {
	last := readAttachments(m.Dir)
	for i, card := range nics {
		backend, err := n.backends.forType(card.network(m))
		if err != nil {
			return attachments{}, err
		}
		a, err := backend.attach(ctx, m, i, card.network(m), last.of(i))
		if err != nil {
			return attachments{}, err
		}
		if i == 0 {
			all.attachment = a
		} else {
			all.Others = append(all.Others, a)
		}
	}
	if err := writeJSON(filepath.Join(m.Dir, attachmentFile), all); err != nil {
		return attachments{}, disk.FullError(err)
	}
	return all, nil
}

// attachInner is attach for a guest with one NIC that runs from memory and knows
// itself by in.
func (n *networks) attachInner(ctx context.Context, m vm.Machine, in network.Inner) (attachments, error) {
	tap, address, err := n.manager.AttachInner(ctx, network.Kind(m.Network), m.ID, macAddress(m.ID), m.Name, in)
	if err != nil {
		return attachments{}, fmt.Errorf("attaching the machine to its network: %w", err)
	}
	a := attachments{attachment: attachment{Tap: tap, Inner: &in, Address: address}}
	return a, disk.FullError(writeJSON(filepath.Join(m.Dir, attachmentFile), a))
}

// readAttachments returns the machine's last attachments. They are zero if there
// are none or if they cannot be read.
func readAttachments(dir string) attachments {
	var a attachments
	if err := readJSON(filepath.Join(dir, attachmentFile), &a); err != nil {
		return attachments{}
	}
	return a
}

// open opens what the NIC with index i is attached to and returns QEMU's option
// for it, without its id. Each user network has a subnet of its own.
func (a attachment) open(i int, files *process.Files) (netdev string, err error) {
	if a.Tap != "" {
		tap, err := network.OpenTap(a.Tap)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("tap,fd=%d", files.Add(tap)), nil
	}
	option := fmt.Sprintf("user,net=10.0.%d.0/24", 2+i)
	if a.Restrict {
		option += ",restrict=on"
	}
	for _, f := range a.Forwards {
		option += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	return option, nil
}

// hostPort returns the host's port that leads to the guest's, or 0.
func (a attachment) hostPort(guest int) int {
	for _, f := range a.Forwards {
		if f.Guest == guest {
			return f.Host
		}
	}
	return 0
}

// networkBackend attaches machines to networks. There are two: QEMU's user
// network, which needs nothing of the host, and a bridge of the host.
type networkBackend interface {
	// name is "user" or "bridge".
	name() string

	// available returns nil if there is a network of type t. Otherwise it
	// returns a *vm.Error that says why not.
	available(t vm.NetworkType) error

	// attach prepares what the machine's NIC with index i is attached to at its
	// next start. t is the type of its network. last is the previous attachment,
	// which may be the zero value.
	attach(ctx context.Context, m vm.Machine, i int, t vm.NetworkType, last attachment) (attachment, error)
}

// bridgeBackend attaches each machine to a bridge of the host by a tap device.
type bridgeBackend struct{ manager *network.Manager }

func (bridgeBackend) name() string { return "bridge" }

func (b bridgeBackend) available(t vm.NetworkType) error {
	if why := b.manager.Available(network.Kind(t)); why != nil {
		return unavailable(t, why.Error())
	}
	return nil
}

// attach forwards no ports: the host reaches the guest at the guest's address.
func (b bridgeBackend) attach(ctx context.Context, m vm.Machine, i int, t vm.NetworkType, _ attachment) (attachment, error) {
	tap, err := b.manager.Attach(ctx, network.Kind(t), m.ID, macOf(m.ID, i), m.Name)
	if err != nil {
		return attachment{}, fmt.Errorf("attaching the machine to its network: %w", err)
	}
	return attachment{Tap: tap}, nil
}

// userBackend is QEMU's user network. Each guest is alone behind its QEMU,
// opens connections with the rights of the daemon's user, and is reached
// through forwarded ports. A hostonly guest reaches nothing: neither other
// hosts, nor servers on the host's loopback address, to which QEMU otherwise
// leads at 10.0.2.2.
type userBackend struct {
	ports []int  // of every guest, to be forwarded besides sshPort
	why   string // the reason that machines are not on a bridge
}

func (*userBackend) name() string { return "user" }

func (u *userBackend) available(t vm.NetworkType) error {
	if t != vm.Bridged {
		return nil
	}
	return unavailable(t, fmt.Sprintf("machines are on QEMU's user network, because %s. Bridged machines need a Linux host, "+
		"a daemon that may set up networks, and -bridge NAME with a bridge of that host; nat and hostonly are available", u.why))
}

// attach picks a free port of the host for each of the guest's ports: the
// previous one if it is still free. Only the first NIC has forwarded ports.
func (u *userBackend) attach(ctx context.Context, m vm.Machine, i int, t vm.NetworkType, last attachment) (attachment, error) {
	a := attachment{Restrict: t == vm.HostOnly}
	if i > 0 {
		return a, nil
	}
	for _, guest := range u.wanted(m) {
		listener, err := listenFree(ctx, last.hostPort(guest))
		if err != nil {
			return attachment{}, fmt.Errorf("looking for a free port: %w", err)
		}
		// The listeners stay open until every port is found, so that no port
		// is found twice.
		defer listener.Close()
		a.Forwards = append(a.Forwards, vm.PortForward{Host: listener.Addr().(*net.TCPAddr).Port, Guest: guest})
	}
	return a, nil
}

// wanted lists the guest's ports to forward, each once.
func (u *userBackend) wanted(m vm.Machine) []int {
	ports := []int{sshPort}
	for _, p := range slices.Concat(u.ports, m.Forward) {
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	return ports
}

// listenFree listens at the port if it is free, and otherwise at any free port.
func listenFree(ctx context.Context, port int) (net.Listener, error) {
	var config net.ListenConfig
	if listener, err := config.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
		return listener, nil
	}
	return config.Listen(ctx, "tcp4", "127.0.0.1:0")
}

// portTaken reports whether QEMU ended because another program took a port
// after listenFree had found it free.
func portTaken(stderr string) bool {
	return strings.Contains(stderr, "Could not set up host forwarding rule")
}
