package qemu

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"osx-builder/vm"
)

// sshPort is forwarded to every guest on the user network.
const sshPort = 22

// userNet is QEMU's own network stack: each guest is alone behind its QEMU,
// reaches out as the daemon's user does, and is reached by forwarded ports. On
// hostonly it reaches nothing: not the world, and not what listens on the
// host's loopback, which QEMU otherwise leads to at 10.0.2.2.
type userNet struct {
	ports []int  // of every guest, to be forwarded beside sshPort
	why   string // there is no bridge
}

func (*userNet) name() string { return "user" }

func (u *userNet) offers(t vm.NetworkType) error {
	if t != vm.Bridged {
		return nil
	}
	return unavailable(t, fmt.Sprintf("machines are on QEMU's user network, because %s. Bridged machines need a Linux host, "+
		"a daemon that may set up networks, and -bridge NAME with a bridge of that host; nat and hostonly are to be had", u.why))
}

// plug picks a free port of the host for each of the guest's, the last one
// again where nobody took it.
func (u *userNet) plug(ctx context.Context, m vm.Machine, last link) (link, error) {
	l := link{Restrict: m.Network == vm.HostOnly}
	for _, guest := range u.wanted(m) {
		listener, err := listenFree(ctx, last.host(guest))
		if err != nil {
			return link{}, fmt.Errorf("looking for a free port: %w", err)
		}
		// Open until all are found, lest one be found twice.
		defer listener.Close()
		l.Forwards = append(l.Forwards, vm.PortForward{Host: listener.Addr().(*net.TCPAddr).Port, Guest: guest})
	}
	return l, nil
}

// wanted lists the guest's ports that are to be forwarded, each once.
func (u *userNet) wanted(m vm.Machine) []int {
	ports := []int{sshPort}
	for _, p := range slices.Concat(u.ports, m.Forward) {
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	return ports
}

// host returns the host's port that leads to the guest's, or 0.
func (l link) host(guest int) int {
	for _, f := range l.Forwards {
		if f.Guest == guest {
			return f.Host
		}
	}
	return 0
}

// listenFree listens at the port if it is free, and else at any.
func listenFree(ctx context.Context, port int) (net.Listener, error) {
	var config net.ListenConfig
	if listener, err := config.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
		return listener, nil
	}
	return config.Listen(ctx, "tcp4", "127.0.0.1:0")
}

// portTaken says whether QEMU's complaint is that another program took a port
// after it was found free.
func portTaken(complaint string) bool {
	return strings.Contains(complaint, "Could not set up host forwarding rule")
}
