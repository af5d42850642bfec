package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// daemon runs a dnsmasq of the test's own until the test ends.
func daemon(t *testing.T, do func(func() error) error, args ...string) {
	t.Helper()
	args = append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=" + t.TempDir() + "/pid"}, args...)
	cmd := exec.Command("dnsmasq", args...)
	if err := do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// serveDNS answers questions for name in the namespace.
func (s space) serveDNS(t *testing.T, name, address string) {
	t.Helper()
	daemon(t, s.Do, "--address=/"+name+"/"+address)
	answers := func() bool {
		_, err := s.try("busybox", "nslookup", "-type=a", name, "127.0.0.1")
		return err == nil
	}
	if !until(answers) {
		t.Fatal("the DNS server of the internet does not answer")
	}
}

// serveLAN gives the one address to every client on the bridge.
func serveLAN(t *testing.T, bridge, address string) {
	t.Helper()
	leases := t.TempDir() + "/leases"
	daemon(t, func(f func() error) error { return f() },
		"--port=0", "--interface="+bridge, "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
		"--dhcp-leasefile="+leases, "--dhcp-range="+address+","+address)
}

// receive waits for a packet on a UDP port.
func receive(port int, wait time.Duration, listening chan<- struct{}) error {
	lc := net.ListenConfig{Control: reusable}
	c, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf(":%d", port))
	close(listening)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, _, err = c.ReadFrom(make([]byte, 1500))
	return err
}

// send sends one packet from a UDP port.
func send(port int, to string) error {
	d := net.Dialer{LocalAddr: &net.UDPAddr{Port: port}, Control: reusable}
	c, err := d.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("offer"))
	return err
}

// reusable lets a socket have the port of one that was closed: a child of this
// process has a copy of that until it runs its program.
func reusable(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
}

// discover returns a message of a DHCP client that dnsmasq writes to its log.
func discover(mac net.HardwareAddr) []byte {
	p, err := dhcpv4.NewDiscovery(mac)
	if err != nil {
		return nil
	}
	return p.ToBytes()
}

// say sends the DHCP server one message about the address of the hardware address.
func (b *box) say(t *testing.T, kind dhcpv4.MessageType, about net.HardwareAddr, address, server netip.Addr) {
	t.Helper()
	p, err := dhcpv4.New(
		dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(about),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())),
	)
	if err != nil {
		t.Fatal(err)
	}
	to := net.JoinHostPort(server.String(), "67")
	if kind == dhcpv4.MessageTypeDecline { // RFC 2131, table 5: the address is an option, and is not used
		p.UpdateOption(dhcpv4.OptRequestedIPAddress(address.AsSlice()))
		to = "255.255.255.255:67"
	} else {
		p.ClientIPAddr = address.AsSlice()
	}
	d := net.Dialer{LocalAddr: &net.UDPAddr{Port: 68}, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.BindToDevice(int(fd), "eth0"),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
		})
		return errors.Join(err, failed)
	}}
	if err := b.Do(func() error {
		c, err := d.Dial("udp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(p.ToBytes())
		return err
	}); err != nil {
		t.Fatalf("sending %s: %v", kind, err)
	}
}

// flood sends p often from the port of DHCP clients.
func flood(to string, p []byte, times int) error {
	d := net.Dialer{LocalAddr: &net.UDPAddr{Port: 68}}
	c, err := d.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer c.Close()
	for range times {
		if _, err := c.Write(p); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
	}
	return nil
}

// bridgeMAC returns the address of the only bridge of ours.
func bridgeMAC(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(host(t, "ip", "-br", "link", "show", "type", "bridge")) {
		if f := strings.Fields(line); strings.HasPrefix(f[0], "osxb") {
			return f[2]
		}
	}
	t.Fatal("there is no bridge of ours")
	return ""
}
