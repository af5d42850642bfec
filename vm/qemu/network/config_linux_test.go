package network_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/network"
)

func TestOpenRefusesSubnetsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"10.0.0.0", "fd00::/64", "10.0.0.0/30", "10.0.0.0/7", "nat"} {
		_, err := network.Open(network.Config{Dir: t.TempDir(), Name: s, Subnet: s})
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("Open with subnet %q: %v, want an error that names it", s, err)
		}
	}
}

func TestSubnetIsTheOneAskedFor(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	_, _ = l.boot(t, network.NAT, 1)
	if err := l.Detach(t.Context(), id(1)); err != nil {
		t.Fatal(err)
	}
	// The bridge of an earlier run gives way, as nobody is on it.
	l.conf.Subnet = "172.30.8.0/29"
	l.open(t)
	want := netip.MustParsePrefix(l.conf.Subnet)
	for n := range 5 {
		if _, a := l.boot(t, network.NAT, n); !want.Contains(a) {
			t.Errorf("guest %d got %s, want one of %s", n, a, want)
		}
	}
	_, err := l.Attach(t.Context(), network.NAT, id(6), mac(6), "")
	if err == nil || !strings.Contains(err.Error(), want.String()) {
		t.Errorf("Attach to a full subnet: %v, want an error that names %s", err, want)
	}
}

func TestSubnetCollidesWithNothing(t *testing.T) {
	t.Parallel()
	newHost(t)
	host(t, "ip", "link", "add", "other0", "type", "bridge")
	t.Cleanup(func() { host(t, "ip", "link", "del", "other0") })
	host(t, "ip", "addr", "add", "172.16.0.1/13", "dev", "other0")
	host(t, "ip", "link", "set", "other0", "up")
	host(t, "ip", "route", "add", "10.0.0.0/8", "dev", "other0", "table", "77")
	host(t, "ip", "route", "add", "192.168.0.0/16", "dev", "other0")

	l := newLab(t, nil)
	_, a := l.boot(t, network.NAT, 1)
	if free := netip.MustParsePrefix("172.24.0.0/13"); !free.Contains(a) {
		t.Errorf("guest got %s, want one of %s, which is all that is free", a, free)
	}

	// A name server that is reached by the default route is no route either.
	if err := l.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	setNameServer(t, firstOf(a).Next().Next().String())
	if _, b := l.boot(t, network.NAT, 1); firstOf(a) == firstOf(b) {
		t.Errorf("the subnet around %s hides the host's name server", a)
	}

	l = newLab(t, func(c *network.Config) { c.Subnet = "192.168.9.0/24" })
	_, err := l.Attach(t.Context(), network.NAT, id(1), mac(1), "")
	if err == nil || !strings.Contains(err.Error(), "192.168.9.0/24") {
		t.Errorf("Attach with a subnet that is taken: %v, want an error that names it", err)
	}
}

// setNameServer changes the host's resolver for the test.
func setNameServer(t *testing.T, address string) {
	t.Helper()
	set := func(a string) {
		if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver "+a+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set(address)
	t.Cleanup(func() { set(internetIP) })
}

func TestAddressIsThatOfALeaseThatHolds(t *testing.T) {
	t.Parallel()
	newHost(t)
	now := time.Now().Unix()
	line := func(ends int64, n int, a string) string {
		return fmt.Sprintf("%d %s %s * *\n", ends, mac(n), a)
	}
	l := newLab(t, nil)
	file := filepath.Join(l.conf.Dir, "nat", "leases")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	text := line(now-5, 1, "10.1.1.11") + line(now+500, 2, "10.1.1.12") + line(0, 3, "10.1.1.13") +
		"duid 00:01\n\nnonsense a b c d\n" + line(now+500, 5, "nowhere") + fmt.Sprintf("%d %s 10.1", now, mac(4))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{1: "", 2: "10.1.1.12", 3: "10.1.1.13", 4: "", 5: "", 6: ""} {
		got := l.address(t, n)
		if got.IsValid() != (want != "") || (got.IsValid() && got.String() != want) {
			t.Errorf("address of card %d is %s, want %q", n, got, want)
		}
	}
}

func TestCardsThatCannotBeAttached(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	if _, err := l.Attach(t.Context(), network.NAT, id(1), mac(1), ""); err != nil {
		t.Fatal(err)
	}
	for name, attach := range map[string]func() (string, error){
		"MAC of another machine": func() (string, error) { return l.Attach(t.Context(), network.NAT, id(2), mac(1), "") },
		"MAC on another network": func() (string, error) { return l.Attach(t.Context(), network.HostOnly, id(1), mac(1), "") },
		"group address":          func() (string, error) { return l.Attach(t.Context(), network.NAT, id(2), []byte{1, 0, 0, 0, 0, 1}, "") },
		"short address":          func() (string, error) { return l.Attach(t.Context(), network.NAT, id(2), []byte{2, 0}, "") },
		"unknown network":        func() (string, error) { return l.Attach(t.Context(), "lan", id(2), mac(2), "") },
		"bridged without bridge": func() (string, error) { return l.Attach(t.Context(), network.Bridged, id(2), mac(2), "") },
	} {
		if tap, err := attach(); err == nil {
			t.Errorf("%s: got tap %s, want an error", name, tap)
		}
	}
}

func TestAvailableNamesWhatIsMissing(t *testing.T) {
	newHost(t) // not beside other tests, as it changes PATH
	l := newLab(t, func(c *network.Config) { c.Bridge = "nowhere0" })
	if err := l.Available(network.NAT); err != nil {
		t.Errorf("nat on this host: %v", err)
	}
	says := func(k network.Kind, words string) {
		t.Helper()
		if err := l.Available(k); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("Available(%s): %v, want an error with %q", k, err, words)
		}
	}
	says(network.Bridged, "nowhere0")
	says("lan", "hostonly")

	hide := func(path string) func() {
		if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := unix.Unmount(path, 0); err != nil {
				t.Error(err)
			}
		}
	}
	t.Setenv("PATH", t.TempDir())
	if err := l.Available(network.NAT); err != nil {
		t.Errorf("nat without a PATH to dnsmasq: %v", err)
	}
	shows := []func(){}
	for _, path := range []string{"/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq"} {
		if _, err := os.Stat(path); err == nil {
			shows = append(shows, hide(path))
		}
	}
	says(network.NAT, "dnsmasq-base")
	for _, show := range shows {
		show()
	}

	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread loses its capabilities and ends here
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			t.Error(err)
			return
		}
		says(network.NAT, "CAP_NET_ADMIN")
	}()
	<-done
}

func TestNothingIsTouchedBeforeTheFirstGuest(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	before := traces(t, l)
	for name, verb := range map[string]func() error{
		"Repair": func() error { return l.Repair(t.Context()) },
		"Detach": func() error { return l.Detach(t.Context(), id(1)) },
		"Sweep":  func() error { return l.Sweep(t.Context(), func(string) bool { return false }) },
		"Clean":  func() error { return l.Clean(t.Context()) },
		"Close":  l.Close,
	} {
		if err := verb(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		compare(t, traces(t, l), before)
	}
	if _, err := os.Stat(l.conf.Dir); err == nil {
		t.Error("there is a folder")
	}
}
