package qemu

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/network"
)

// sshPort is forwarded to every guest on the user network.
const sshPort = 22

// attachment says what a machine's NIC is attached to. It is kept in
// Machine.Dir, because the daemon that reads it may have another network
// backend than the daemon that started the machine.
type attachment struct {
	Tap      string           `json:"tap,omitempty"`      // name of the host's device, or "" on the user network
	Forwards []vm.PortForward `json:"forwards,omitempty"` // of the user network
	Restrict bool             `json:"restrict,omitempty"` // the user network leads nowhere but to Forwards
}

// attach makes the machine's attachment, writes it down for Inspect and returns
// QEMU's option for it.
func (n *networks) attach(ctx context.Context, m vm.Machine) (netdev string, err error) {
	backend, err := n.backends.forType(m.Network)
	if err != nil {
		return "", err
	}
	a, err := backend.attach(ctx, m, readAttachment(m.Dir))
	if err != nil {
		return "", err
	}
	if err := writeJSON(filepath.Join(m.Dir, attachmentFile), a); err != nil {
		return "", disk.FullError(err)
	}
	return a.netdev(), nil
}

// readAttachment returns the machine's last attachment. It returns the zero
// attachment if there is none or if it cannot be read.
func readAttachment(dir string) attachment {
	var a attachment
	if err := readJSON(filepath.Join(dir, attachmentFile), &a); err != nil {
		return attachment{}
	}
	return a
}

// netdev is QEMU's option for the attachment.
func (a attachment) netdev() string {
	if a.Tap != "" {
		return "tap,id=net0,ifname=" + a.Tap + ",script=no,downscript=no"
	}
	option := "user,id=net0"
	if a.Restrict {
		option += ",restrict=on"
	}
	for _, f := range a.Forwards {
		option += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	return option
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

// macAddress returns the machine's MAC address, which never changes. Its first
// byte, 0x52, marks it as locally administered and unicast. The other bytes are
// a hash of the id.
func macAddress(id string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(id))
	return net.HardwareAddr{0x52, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// networkBackend attaches machines to networks. There are two: QEMU's user
// network, which needs nothing of the host, and a bridge of the host.
type networkBackend interface {
	// name is "user" or "bridge".
	name() string

	// available returns nil if there is a network of type t. Otherwise it
	// returns a *vm.Error that says why not.
	available(t vm.NetworkType) error

	// attach prepares what the machine's NIC is attached to at its next start.
	// last is the previous attachment, which may be the zero value.
	attach(ctx context.Context, m vm.Machine, last attachment) (attachment, error)
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
func (b bridgeBackend) attach(ctx context.Context, m vm.Machine, _ attachment) (attachment, error) {
	tap, err := b.manager.Attach(ctx, network.Kind(m.Network), m.ID, macAddress(m.ID))
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
// previous one if it is still free.
func (u *userBackend) attach(ctx context.Context, m vm.Machine, last attachment) (attachment, error) {
	a := attachment{Restrict: m.Network == vm.HostOnly}
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
