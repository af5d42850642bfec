package network_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/network"
)

// inner returns the identity that machines which were started from memory have inside.
func (l *lab) inner(t *testing.T, k network.Kind) network.Inner {
	t.Helper()
	in, err := l.Inner(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// clone attaches the nth machine as one that was started from memory, with the
// inner identity as its own, and returns its outer address.
func (l *lab) clone(t *testing.T, k network.Kind, n int) (*box, netip.Addr) {
	t.Helper()
	in := l.inner(t, k)
	tap, outer, err := l.AttachInner(t.Context(), k, id(n), mac(n), "", in)
	if err != nil {
		t.Fatal(err)
	}
	hw, err := net.ParseMAC(in.MAC)
	if err != nil {
		t.Fatal(err)
	}
	b := plug(t, tap, id(n), hw)
	b.run(t, "ip", "addr", "add", netip.PrefixFrom(in.Address, in.Gateway.Bits()).String(), "dev", "eth0")
	b.run(t, "ip", "route", "add", "default", "via", in.Gateway.Addr().String())
	return b, outer
}

// Machines that were started from one template have one identity inside, and
// everybody else sees each one's own.
func TestClonesHaveOwnIdentities(t *testing.T) {
	t.Parallel()
	newHost(t)
	internet := newInternet(t)
	internet.listen(t, internetIP+":80")
	l := newLab(t, nil)
	one, a1 := l.clone(t, network.NAT, 1)
	two, a2 := l.clone(t, network.NAT, 2)
	plain, a3 := l.boot(t, network.NAT, 3)
	gw := firstOf(a1)
	if a1 == a2 || a1 == a3 || a2 == a3 {
		t.Fatalf("the outer addresses are %s, %s and %s, want three", a1, a2, a3)
	}
	for _, b := range []space{one.space, two.space, plain.space} {
		b.listen(t, ":80")
		b.echoUDP(t, 7)
	}
	home := thisSpace(t)
	home.echoUDP(t, 7)
	home.listen(t, gw.String()+":80")
	paths := []struct {
		name   string
		from   space
		to     netip.Addr
		seenAs string
	}{
		{"host to clone", home, a1, gw.String()},
		{"clone to host", one.space, gw, a1.String()},
		{"clone to clone", one.space, a2, a1.String()},
		{"and back", two.space, a1, a2.String()},
		{"machine to clone", plain.space, a2, a3.String()},
		{"clone to machine", two.space, a3, a2.String()},
		{"clone to the internet", two.space, netip.MustParseAddr(internetIP), hostOutside},
	}
	for _, p := range paths {
		sub(t, p.name, func(t *testing.T) {
			if who, err := p.from.get(p.to.String() + ":80"); err != nil || who != p.seenAs {
				t.Errorf("the server saw %q (%v), want %s", who, err, p.seenAs)
			}
			if p.to.String() == internetIP {
				return
			}
			if got, err := p.from.askUDP(p.to, 7); err != nil || got != "echo" {
				t.Errorf("over UDP came %q (%v), want an echo", got, err)
			}
			if out, err := p.from.try("busybox", "ping", "-c", "1", "-W", "60", p.to.String()); err != nil {
				t.Errorf("no answer to an ICMP echo: %s", out)
			}
			// The error for a closed port comes over ICMP, with the packet in it.
			if _, err := p.from.askUDP(p.to, 9); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a closed UDP port: got %v, want %v", err, unix.ECONNREFUSED)
			}
		})
	}
	sub(t, "an upload over a narrow path", func(t *testing.T) {
		host(t, "ip", "link", "set", "outside", "mtu", "1200")
		upload(t, one.space, internet)
	})
	sub(t, "a clone with the address of another one is cut off", func(t *testing.T) {
		one.run(t, "ip", "addr", "flush", "dev", "eth0")
		one.run(t, "ip", "addr", "add", a2.String()+"/24", "dev", "eth0")
		one.run(t, "ip", "neigh", "replace", gw.String(), "lladdr", bridgeMAC(t), "dev", "eth0")
		if home.hears(t, one.space, gw, moment) {
			t.Error("the host hears it")
		}
		if !two.reaches(gw) {
			t.Error("the owner of the address is cut off")
		}
	})
}

// A clone renews the lease of its outer identity, although it asks for the inner
// one.
func TestClonesRenewTheirLeases(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	in := l.inner(t, network.NAT)
	for n := 1; n <= 2; n++ {
		b, outer := l.clone(t, network.NAT, n)
		for range 2 {
			answer, err := b.renew(in)
			if err != nil {
				t.Fatalf("clone %d: %v", n, err)
			}
			if got, _ := netip.AddrFromSlice(answer.YourIPAddr.To4()); got != in.Address || answer.ClientHWAddr.String() != in.MAC {
				t.Errorf("clone %d renewed %s for %s, want %s for %s", n, got, answer.ClientHWAddr, in.Address, in.MAC)
			}
		}
		if got := l.address(t, n); got != outer {
			t.Errorf("the lease of clone %d is for %s, want %s", n, got, outer)
		}
	}
}

// The machine that templates are made of has the inner identity for good, and
// nobody else ever has its address.
func TestInnerIdentityIsReserved(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, func(c *network.Config) { c.Subnet = "10.77.0.0/29" })
	tap, in, err := l.AttachTemplate(t.Context(), network.NAT, id(9))
	if err != nil {
		t.Fatal(err)
	}
	hw, err := net.ParseMAC(in.MAC)
	if err != nil {
		t.Fatal(err)
	}
	if got := plug(t, tap, id(9), hw).dhcp(t); got != in.Address {
		t.Errorf("the template got the lease %s, want %s", got, in.Address)
	}
	if _, _, err := l.AttachTemplate(t.Context(), network.NAT, id(8)); err == nil {
		t.Error("two templates are attached at once")
	}
	if err := l.Detach(t.Context(), id(9)); err != nil {
		t.Fatal(err)
	}
	l.open(t)
	for n := 1; n <= 4; n++ {
		if _, a := l.boot(t, network.NAT, n); a == in.Address {
			t.Errorf("machine %d got the inner address %s", n, a)
		}
	}
	if _, err := l.Attach(t.Context(), network.NAT, id(5), mac(5), ""); err == nil {
		t.Error("a fifth machine was given an address of a subnet with five, one of them the inner one")
	}
	if again, err := l.Inner(t.Context(), network.NAT); err != nil || again != in {
		t.Errorf("the inner identity is %v (%v), was %v", again, err, in)
	}
	other := in
	other.Address = in.Address.Next()
	if _, _, err := l.AttachInner(t.Context(), network.NAT, id(1), mac(1), "", other); err == nil {
		t.Error("a machine was attached with the inner identity of another network")
	}
	if _, err := l.Inner(t.Context(), network.Bridged); err == nil {
		t.Error("a bridged network has an inner identity")
	}
}

// echoUDP answers each datagram to the port with its own text.
func (s space) echoUDP(t *testing.T, port int) {
	t.Helper()
	var c *net.UDPConn
	if err := s.Do(func() (err error) { c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port}); return err }); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:n], from) // a lost answer fails the test
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
}

// askUDP sends a datagram and returns the answer.
func (s space) askUDP(to netip.Addr, port uint16) (answer string, err error) {
	err = s.Do(func() error {
		c, err := net.DialTimeout("udp4", netip.AddrPortFrom(to, port).String(), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := c.Write([]byte("echo")); err != nil {
			return err
		}
		buf := make([]byte, 1500)
		n, err := c.Read(buf)
		answer = string(buf[:n])
		return err
	})
	return answer, err
}

// upload sends more than fits into the buffers of a connection.
func upload(t *testing.T, from, to space) {
	t.Helper()
	const size = 4 << 20
	var l net.Listener
	if err := to.Do(func() (err error) { l, err = net.Listen("tcp4", internetIP+":81"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- err
			return
		}
		defer c.Close()
		n, err := io.Copy(io.Discard, c)
		if err == nil && n != size {
			err = fmt.Errorf("received %d bytes, want %d", n, size)
		}
		received <- err
	}()
	err := from.Do(func() error {
		c, err := net.DialTimeout("tcp4", internetIP+":81", patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		_, err = io.Copy(c, bytes.NewReader(make([]byte, size)))
		return err
	})
	if err != nil {
		l.Close()
	}
	if err := errors.Join(err, <-received); err != nil {
		t.Error(err)
	}
}

// renew asks the server for a longer lease of the inner identity, as a client that
// has one does (RFC 2131, 4.3.2), and returns the answer.
func (b *box) renew(in network.Inner) (answer *dhcpv4.DHCPv4, err error) {
	hw, err := net.ParseMAC(in.MAC)
	if err != nil {
		return nil, err
	}
	request, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(hw),
		dhcpv4.WithClientIP(in.Address.AsSlice()))
	if err != nil {
		return nil, err
	}
	err = b.Do(func() error {
		local := &net.UDPAddr{IP: in.Address.AsSlice(), Port: dhcpv4.ClientPort}
		server := &net.UDPAddr{IP: in.Gateway.Addr().AsSlice(), Port: dhcpv4.ServerPort}
		c, err := net.DialUDP("udp4", local, server)
		// A process that another test has just forked has the socket of before until it executes its program.
		for deadline := time.Now().Add(patience); errors.Is(err, unix.EADDRINUSE) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
			c, err = net.DialUDP("udp4", local, server)
		}
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := c.Write(request.ToBytes()); err != nil {
			return err
		}
		buf := make([]byte, 1500)
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		answer, err = dhcpv4.FromBytes(buf[:n])
		return err
	})
	if err == nil && answer.MessageType() != dhcpv4.MessageTypeAck {
		err = fmt.Errorf("the server answered %s", answer.MessageType())
	}
	return answer, err
}
