package network_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/network"
)

func TestHostOnlyHasNoWayOut(t *testing.T) {
	t.Parallel()
	newHost(t)
	internet := newInternet(t)
	internet.listen(t, internetIP+":80")
	l := newLab(t, nil)
	lonely, a := l.boot(t, network.HostOnly, 1)
	other, b := l.boot(t, network.HostOnly, 2)
	natted, n := l.boot(t, network.NAT, 3)
	gw := firstOf(a)

	if !lonely.reaches(b) || !lonely.reaches(gw) {
		t.Error("a hostonly guest does not reach another, or the host")
	}
	// With a default route the host's rules are all that stops it.
	lonely.run(t, "ip", "route", "replace", "default", "via", gw.String())
	if _, err := lonely.getWithin(internetIP+":80", moment); err == nil {
		t.Error("a hostonly guest reached the internet")
	}
	if internet.hears(t, lonely.space, netip.MustParseAddr(internetIP), moment) {
		t.Error("a packet of a hostonly guest reached the internet")
	}
	if lonely.hears(t, internet, a, moment) {
		t.Error("a packet of the internet reached a hostonly guest")
	}
	if !lonely.cutOff(n) || !natted.cutOff(a) {
		t.Error("hostonly and nat guests reach each other")
	}
	if !natted.cutOff(gw) {
		t.Error("a nat guest reaches the gateway of hostonly")
	}
	if out := other.run(t, "ip", "route"); strings.Contains(out, "default") {
		t.Errorf("a hostonly guest was given a router: %s", out)
	}
}

// hears reports whether a packet gets from one space to another in time, be
// there a way back or not.
func (s space) hears(t *testing.T, from space, at netip.Addr, wait time.Duration) bool {
	t.Helper()
	const port = 5353
	listening, heard := make(chan struct{}), make(chan error, 1)
	go func() { heard <- s.Do(func() error { return receive(port, wait, listening) }) }()
	<-listening
	if err := from.Do(func() error { return send(port, netip.AddrPortFrom(at, port).String()) }); err != nil {
		t.Error(err)
	}
	return <-heard == nil
}

// firstOf returns the first address of a's /24, which is the host's.
func firstOf(a netip.Addr) netip.Addr {
	b := a.As4()
	b[3] = 1
	return netip.AddrFrom4(b)
}

func TestGatewayIsForItsOwnGuests(t *testing.T) {
	t.Parallel()
	newHost(t)
	internet := newInternet(t)
	l := newLab(t, nil)
	own, a := l.boot(t, network.NAT, 1)
	if !own.reaches(firstOf(a)) {
		t.Error("a guest does not reach its gateway")
	}
	if !internet.cutOff(firstOf(a)) {
		t.Error("the internet reaches the gateway, and so dnsmasq")
	}
	if c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(firstOf(a), 53).String(), patience); err != nil {
		t.Errorf("the host does not reach its own gateway: %v", err)
	} else {
		c.Close()
	}
	// A guest asks who has an address before it takes it, from no address yet.
	if out, _ := own.try("busybox", "arping", "-D", "-c", "1", "-w", "60", "-I", "eth0", firstOf(a).String()); !strings.Contains(out, "eply from") {
		t.Errorf("a guest that asks whether the gateway's address is free gets: %s", out)
	}
}

func TestNamesAreResolved(t *testing.T) {
	t.Parallel()
	newHost(t)
	internet := newInternet(t)
	internet.serveDNS(t, "web.example", internetIP)
	l := newLab(t, nil)
	b, a := l.boot(t, network.NAT, 1)
	if out := b.lookup("web.example", a); !strings.Contains(out, "Address: "+internetIP) {
		t.Errorf("the guest got %s", out)
	}
}

// Guests of a managed network find each other by name, for as long as the other is attached. The DNS server of hostonly
// asks no other, and a machine that has a card on nat too is not told of it.
func TestGuestsHaveNames(t *testing.T) {
	t.Parallel()
	newHost(t)
	internet := newInternet(t)
	internet.serveDNS(t, "web.example", internetIP)
	l := newLab(t, nil)
	for _, k := range []network.Kind{network.NAT, network.HostOnly} {
		first := map[network.Kind]int{network.NAT: 1, network.HostOnly: 11}[k]
		one, a := l.boot(t, k, first)
		_, b := l.boot(t, k, first+1)
		for _, other := range []string{name(first + 1), name(first+1) + ".vm.internal"} {
			if out := one.lookup(other, a); !strings.Contains(out, "Address: "+b.String()) {
				t.Errorf("%s: %s: got %s, want %s", k, other, out, b)
			}
		}
		if err := l.Detach(t.Context(), id(first+1)); err != nil {
			t.Fatal(err)
		}
		if !until(func() bool { return !strings.Contains(one.lookup(name(first+1), a), b.String()) }) {
			t.Errorf("%s: the name of a detached machine still has an address", k)
		}
		if out := one.lookup("web.example", a); strings.Contains(out, internetIP) != (k == network.NAT) {
			t.Errorf("%s: the guest got %s for a name outside", k, out)
		}
		if out := one.offer(t); !strings.Contains(out, "dns="+firstOf(a).String()) || !strings.Contains(out, "domain=vm.internal") {
			t.Errorf("%s: got %q, want the DNS server %s and its domain", k, out, firstOf(a))
		}
	}
	both := l.attach(t, network.HostOnly, 20)
	if _, err := l.Attach(t.Context(), network.NAT, id(20), mac(21), name(20)); err != nil {
		t.Fatal(err)
	}
	if out := both.offer(t); !strings.Contains(out, "dns= ") {
		t.Errorf("a machine on both networks: got %q, want no DNS server of hostonly", out)
	}
}

// lookup asks the DNS server of the network that the address is in.
func (b *box) lookup(name string, on netip.Addr) string {
	out, err := b.try("busybox", "nslookup", "-type=a", name, firstOf(on).String())
	_, answer, _ := strings.Cut(out, "\n\n") // the first lines are about the server
	return fmt.Sprint(answer, err)
}

func TestSpoofingGuestIsCutOff(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	bad, a1 := l.boot(t, network.NAT, 1)
	good, a2 := l.boot(t, network.NAT, 2)
	gw := firstOf(a1)
	home := thisSpace(t)
	if !home.hears(t, bad.space, gw, patience) {
		t.Error("the host does not hear a guest that is honest yet")
	}
	reset := func(t *testing.T) {
		t.Cleanup(func() {
			bad.run(t, "ip", "link", "set", "eth0", "address", mac(1).String())
			bad.run(t, "ip", "addr", "flush", "dev", "eth0")
			bad.run(t, "ip", "addr", "add", a1.String()+"/24", "dev", "eth0")
			if !bad.reaches(gw) || !good.reaches(gw) {
				t.Error("an honest guest is cut off")
			}
		})
	}
	sub(t, "with another IP", func(t *testing.T) {
		reset(t)
		bad.run(t, "ip", "addr", "flush", "dev", "eth0")
		bad.run(t, "ip", "addr", "add", a2.String()+"/24", "dev", "eth0")
		bad.run(t, "ip", "neigh", "replace", gw.String(), "lladdr", bridgeMAC(t), "dev", "eth0")
		if home.hears(t, bad.space, gw, moment) {
			t.Error("the host hears it")
		}
	})
	sub(t, "with another MAC", func(t *testing.T) {
		reset(t)
		bad.run(t, "ip", "link", "set", "eth0", "address", mac(2).String())
		if home.hears(t, bad.space, gw, moment) {
			t.Error("the host hears it")
		}
		if !good.reaches(gw) {
			t.Error("the owner of the MAC lost its frames")
		}
	})
	sub(t, "with the gateway's IP in ARP", func(t *testing.T) {
		reset(t)
		good.run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_accept") // of news that nobody asked for
		bad.run(t, "ip", "addr", "add", gw.String()+"/24", "dev", "eth0")
		fooled := func() bool {
			good.run(t, "ip", "neigh", "flush", "dev", "eth0")
			_, _ = bad.try("busybox", "arping", "-U", "-c", "1", "-w", "1", "-I", "eth0", "-s", gw.String(), gw.String())
			return strings.Contains(good.run(t, "ip", "neigh"), mac(1).String())
		}
		if fooled() {
			t.Error("the other guest believes it")
		}
		host(t, "nft", "delete", "table", "bridge", tableName(t))
		if !until(fooled) {
			t.Error("the other guest does not even believe it without our table")
		}
		good.run(t, "ip", "neigh", "flush", "dev", "eth0")
		if err := l.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	sub(t, "as a DHCP server", func(t *testing.T) {
		reset(t)
		pinned := make(chan struct{})
		got := make(chan error, 1)
		go func() {
			got <- good.Do(func() error { return receive(68, moment, pinned) })
		}()
		<-pinned
		if err := bad.Do(func() error { return send(67, net.JoinHostPort(a2.String(), "68")) }); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err == nil {
			t.Error("a guest was answered by another one's DHCP server")
		}
	})
	sub(t, "with another guest's hardware address in DHCP", func(t *testing.T) {
		reset(t)
		// What a guest says in another one's name: that the lease is over, or that
		// the address is in use elsewhere.
		attack := func() {
			t.Helper()
			bad.reaches(gw) // a packet that waits for ARP is lost with the sender's address
			bad.say(t, dhcpv4.MessageTypeRelease, mac(2), a2, gw)
			bad.say(t, dhcpv4.MessageTypeRelease, mac(1), a2, gw)
			bad.run(t, "ip", "addr", "flush", "dev", "eth0")
			bad.say(t, dhcpv4.MessageTypeDecline, mac(2), a2, gw)
			bad.run(t, "ip", "addr", "add", a1.String()+"/24", "dev", "eth0")
		}
		attack()
		if a := bad.dhcp(t); a != a1 { // dnsmasq has read what came before
			t.Errorf("the guest's own address became %s, was %s", a, a1)
		}
		if a := l.address(t, 2); a != a2 {
			t.Errorf("the other guest's lease is %s, was %s; dnsmasq says\n%s", a, a2, l.serverLog(network.NAT))
		}
		if a := good.dhcp(t); a != a2 {
			t.Errorf("the other guest gets %s, had %s", a, a2)
		}
		// Without our table the lease is lost.
		host(t, "nft", "delete", "table", "bridge", tableName(t))
		if !until(func() bool { attack(); return !l.address(t, 2).IsValid() }) {
			t.Error("dnsmasq does not even believe it without our table")
		}
		if err := l.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		host(t, "kill", append([]string{"-9"}, servers(t, l)...)...) // it keeps the declined address for ten minutes
		if err := l.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a := good.dhcp(t); a != a2 {
			t.Errorf("repaired, the other guest gets %s, had %s", a, a2)
		}
		// A guest ends its own lease.
		bad.say(t, dhcpv4.MessageTypeRelease, mac(1), a1, gw)
		if !until(func() bool { return !l.address(t, 1).IsValid() }) {
			t.Error("a guest cannot end its own lease")
		}
		bad.dhcp(t)
	})
	sub(t, "over IPv6", func(t *testing.T) {
		reset(t)
		to := good.linkLocal(t)
		_ = bad.linkLocal(t)
		dial := func(wait time.Duration) error {
			return bad.Do(func() error {
				d := net.Dialer{Timeout: wait}
				_, err := d.Dial("tcp6", net.JoinHostPort(to+"%eth0", "9"))
				return err
			})
		}
		if err := dial(moment); errors.Is(err, unix.ECONNREFUSED) {
			t.Error("the other guest answers")
		}
		// Without our table it would.
		host(t, "nft", "delete", "table", "bridge", tableName(t))
		if err := dial(patience); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("guests cannot speak IPv6 at all: %v", err)
		}
		if err := l.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	sub(t, "with a flood of DHCP", func(t *testing.T) {
		reset(t)
		before := strings.Count(l.serverLog(network.NAT), "\n")
		err := bad.Do(func() error { return flood(net.JoinHostPort(gw.String(), "67"), discover(mac(1)), 500) })
		if err != nil {
			t.Fatal(err)
		}
		if !good.reaches(gw) {
			t.Error("the other guest is cut off")
		}
		until(func() bool { return strings.Count(l.serverLog(network.NAT), "\n") > before })
		good.dhcp(t) // dnsmasq has answered what came before
		if more := strings.Count(l.serverLog(network.NAT), "\n") - before; more == 0 || more > 100 {
			t.Errorf("500 messages made %d lines of log, want some and few", more)
		}
	})
}

// until asks again until the condition holds, and reports whether it does in
// the end.
func until(holds func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return holds()
}

// linkLocal gives the box an IPv6 address and returns it once the kernel lets programs use it.
func (b *box) linkLocal(t *testing.T) string {
	t.Helper()
	b.run(t, "ip", "link", "set", "eth0", "down")
	b.run(t, "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad")
	b.run(t, "ip", "link", "set", "eth0", "up")
	var shown []string
	if !until(func() bool {
		shown = strings.Fields(b.run(t, "ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link", "-tentative"))
		return len(shown) > 3
	}) {
		t.Fatal("the card gets no IPv6 address")
	}
	address, _, _ := strings.Cut(shown[3], "/")
	return address
}

func TestIsolationHolds(t *testing.T) {
	t.Parallel()
	newHost(t)
	// Where bridges call iptables, rules meant for routed packets would do it too.
	host(t, "sh", "-c", "[ ! -e $1 ] || echo 0 > $1", "sh", "/proc/sys/net/bridge/bridge-nf-call-iptables")
	for _, isolate := range []bool{false, true} {
		l := newLab(t, func(c *network.Config) { c.Isolate = isolate })
		one, a1 := l.boot(t, network.NAT, 1)
		two, a2 := l.boot(t, network.NAT, 2)
		reaches := one.reaches
		if isolate {
			reaches = func(a netip.Addr) bool { return !one.cutOff(a) }
		}
		if got := reaches(a2); got == isolate {
			t.Errorf("with isolation %t: guest reaches guest: %t", isolate, got)
		}
		if !one.reaches(firstOf(a1)) {
			t.Errorf("with isolation %t: guest does not reach the host", isolate)
		}
		// The way round the bridge: by the host, which routes it back.
		one.run(t, "ip", "route", "add", a2.String()+"/32", "via", firstOf(a1).String())
		two.run(t, "ip", "route", "add", a1.String()+"/32", "via", firstOf(a1).String())
		if got := reaches(a2); got == isolate {
			t.Errorf("with isolation %t: guest reaches guest through the host: %t", isolate, got)
		}
		if err := l.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBridgedGuestGetsItsLeaseFromTheLAN(t *testing.T) {
	t.Parallel()
	newHost(t)
	host(t, "ip", "link", "add", "lan0", "type", "bridge")
	t.Cleanup(func() { host(t, "ip", "link", "del", "lan0") })
	host(t, "ip", "addr", "add", "203.0.113.1/24", "dev", "lan0")
	host(t, "ip", "link", "set", "lan0", "up")
	serveLAN(t, "lan0", "203.0.113.50")
	host(t, "ip", "tuntap", "add", "nic0", "mode", "tap")
	t.Cleanup(func() { host(t, "ip", "link", "del", "nic0") })
	host(t, "ip", "link", "set", "nic0", "mtu", "9000", "master", "lan0")

	l := newLab(t, func(c *network.Config) { c.Bridge = "lan0" })
	before := traces(t, l)
	b, a := l.boot(t, network.Bridged, 1)
	if out := host(t, "ip", "link", "show", "lan0"); !strings.Contains(out, "mtu 9000") {
		t.Errorf("the host's bridge shrank: %s", out)
	}
	if a.String() != "203.0.113.50" {
		t.Fatalf("lease is %s, want 203.0.113.50", a)
	}
	if !b.reaches(netip.MustParseAddr("203.0.113.1")) {
		t.Error("guest does not reach the LAN")
	}
	if got := l.address(t, 1); got != a {
		t.Errorf("Address is %s, want %s", got, a)
	}
	b.run(t, "ip", "link", "set", "eth0", "address", mac(7).String())
	if !b.cutOff(netip.MustParseAddr("203.0.113.1")) {
		t.Error("guest reaches the LAN with another MAC")
	}
	if err := l.Detach(t.Context(), id(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	compare(t, traces(t, l), before)
}

func TestFirewallsOfOthersAreNamed(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	if ws, err := l.Warnings(); err != nil || len(ws) != 0 {
		t.Errorf("warnings without other tables: %q, %v", ws, err)
	}
	host(t, "nft", `table ip filter {
		chain FORWARD { type filter hook forward priority 0; policy drop; }
		chain INPUT { type filter hook input priority 0; policy drop; }
		chain OUTPUT { type filter hook output priority 0; policy drop; }
	}`)
	t.Cleanup(func() { host(t, "nft", "delete", "table", "ip", "filter") })
	ws, err := l.Warnings()
	if err != nil || len(ws) != 2 {
		t.Fatalf("warnings: %q, %v; want one for FORWARD and one for INPUT", ws, err)
	}
	for i, word := range []string{"DOCKER-USER", "ufw"} {
		if !strings.Contains(ws[i], word) {
			t.Errorf("warning %q does not say %s", ws[i], word)
		}
	}
}

// A further guest is added to the rules that are there. Replacing them takes 10 ms and more, in which no other guest can be
// attached. After anybody else's change they are replaced at once.
func TestFurtherGuestsAreAdded(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	handles := func() string { return host(t, "nft", "-j", "list", "tables", "bridge") }
	_, a1 := l.boot(t, network.NAT, 1)
	table := tableName(t)
	rules := func() string { return host(t, "nft", "list", "chain", "bridge", table, "prerouting") }
	before, want := handles(), rules()
	two, _ := l.clone(t, network.NAT, 2)
	three, a3 := l.boot(t, network.NAT, 3)
	if !two.reaches(a1) || !three.reaches(a1) {
		t.Error("a further guest does not reach the first one")
	}
	two.run(t, "ip", "link", "set", "eth0", "address", mac(9).String())
	if !two.cutOff(a3) {
		t.Error("a further guest reaches others from another's MAC address")
	}
	if got := handles(); got != before {
		t.Errorf("the tables were replaced: they are\n%s\nand were\n%s", got, before)
	}
	host(t, "nft", "flush", "chain", "bridge", table, "prerouting")
	l.attach(t, network.NAT, 4)
	if got := rules(); got != want {
		t.Errorf("after somebody flushed the chain and a guest was attached, it is\n%s\nwant\n%s", got, want)
	}
	if err := l.Detach(t.Context(), id(4)); err != nil {
		t.Fatal(err)
	}
	if all := host(t, "nft", "list", "ruleset"); strings.Contains(all, mac(4).String()) {
		t.Errorf("the rules know a guest that has gone:\n%s", all)
	}
}
