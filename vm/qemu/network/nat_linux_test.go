package network_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"osx-builder/vm/qemu/network"
)

func TestGuestsOfNatGetAddressesThatAnswer(t *testing.T) {
	t.Parallel()
	newHost(t)
	internet := newInternet(t)
	internet.listen(t, internetIP+":80")
	l := newLab(t, nil)

	if a := l.address(t, 1); a.IsValid() {
		t.Errorf("address before the first guest is %s, want none", a)
	}
	start := time.Now()
	one, a1 := l.boot(t, network.NAT, 1)
	t.Logf("first guest's lease after %s", time.Since(start))
	two, a2 := l.boot(t, network.NAT, 2)
	if a1 == a2 {
		t.Fatalf("both guests got %s", a1)
	}
	if got := l.address(t, 1); got != a1 {
		t.Errorf("Address of guest 1 is %s, it got %s", got, a1)
	}
	if got := l.address(t, 2); got != a2 {
		t.Errorf("Address of guest 2 is %s, it got %s", got, a2)
	}
	for a, want := range map[netip.Addr]bool{a1: false, a2: true, a2.Next(): false, {}: false} {
		if got, err := l.Taken(a, mac(1)); err != nil || got != want {
			t.Errorf("for guest 1 %s is another's: got %t (%v), want %t", a, got, err, want)
		}
	}
	if again := one.dhcp(t); again != a1 {
		t.Errorf("guest 1 got %s when it asked again, had %s", again, a1)
	}

	one.listen(t, ":80")
	sub(t, "host reaches guest", func(t *testing.T) {
		c, err := net.DialTimeout("tcp4", net.JoinHostPort(a1.String(), "80"), patience)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
	sub(t, "guest reaches guest, whether bridges call iptables or not", func(t *testing.T) {
		for _, call := range []string{"0", "1"} {
			host(t, "sh", "-c", "[ ! -e $1 ] || echo "+call+" > $1", "sh", "/proc/sys/net/bridge/bridge-nf-call-iptables")
			if who, err := two.get(net.JoinHostPort(a1.String(), "80")); err != nil || who != a2.String() {
				t.Errorf("guest 1 saw %q (%v), want %s", who, err, a2)
			}
		}
	})
	sub(t, "guest reaches out behind the host's address", func(t *testing.T) {
		if who, err := one.get(internetIP + ":80"); err != nil || who != hostOutside {
			t.Errorf("the internet saw %q (%v), want %s", who, err, hostOutside)
		}
	})
	sub(t, "nothing outside reaches guests", func(t *testing.T) {
		if _, err := internet.getWithin(net.JoinHostPort(a1.String(), "80"), moment); err == nil {
			t.Errorf("the internet reached guest 1")
		}
		if !internet.cutOff(a1) {
			t.Errorf("the internet pinged guest 1")
		}
	})
}
