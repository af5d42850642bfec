package qemu_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"osx-builder/vm/vmtest/e2e"
)

// The link between the host and the namespace that stands for the internet.
const (
	hostOutside = "198.51.100.1"
	internetIP  = "198.51.100.2"
)

// inNamespace runs the test again with a network of its own, so that the host's
// stays as it is, and reports whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if !e2e.IsolateTest(t) {
		return false
	}
	for _, tool := range []string{"dnsmasq", "nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			without(t, "this test needs "+tool)
		}
	}
	return true
}

// space is a further network namespace.
type space struct{ e2e.Namespace }

// newInternet makes a namespace beyond the host's default route, with a web
// server that sends each client its own address. It knows a way into private networks
// through the host, as an attacker nearby would.
func newInternet(t *testing.T) space {
	t.Helper()
	made, err := e2e.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	s := space{made}
	t.Cleanup(func() { s.Close() })
	out := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(s.NsHandle)}
	out.Name = "outside"
	if err := netlink.LinkAdd(out); err != nil {
		t.Fatal(err)
	}
	here := func(f func() error) error { return f() }
	for _, c := range []struct {
		in   func(func() error) error
		args string
	}{
		{here, "addr add " + hostOutside + "/24 dev outside"},
		{here, "link set outside up"},
		{here, "route add default via " + internetIP},
		{s.Do, "addr add " + internetIP + "/24 dev eth0"},
		{s.Do, "link set eth0 up"},
		{s.Do, "route add 10.0.0.0/8 via " + hostOutside},
		{s.Do, "route add 192.0.2.0/24 via " + hostOutside},
	} {
		if err := c.in(exec.Command("ip", strings.Fields(c.args)...).Run); err != nil {
			t.Fatalf("ip %s: %v", c.args, err)
		}
	}
	serveNames(t, s.Do, ":80")
	return s
}

// connects says whether a connection to the guest's page can be had.
func (s space) connects(to netip.Addr) bool {
	return s.Do(func() error {
		c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(to, 80).String(), 400*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	}) == nil
}

// serveNames sends each client of the port the address that it is seen with, and returns
// the port.
func serveNames(t *testing.T, in func(func() error) error, port string) string {
	t.Helper()
	var l net.Listener
	if err := in(func() (err error) { l, err = net.Listen("tcp4", port); return err }); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = c.Read(make([]byte, 1024)) // the request, lest the end of it reset the answer
			fmt.Fprint(c, host)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return port
}

// serveDNSMasq runs a dnsmasq of the test's own.
func serveDNSMasq(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=" + t.TempDir() + "/pid"}, args...)
	cmd := exec.Command("dnsmasq", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
