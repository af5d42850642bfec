package network_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/qemu/network"
)

// traces returns what a Manager could leave on the host: devices, rules,
// forwarding, processes, files.
func traces(t *testing.T, l *lab) map[string]string {
	t.Helper()
	var links []string
	for line := range strings.Lines(host(t, "ip", "-br", "link")) {
		links = append(links, strings.Fields(line)[0])
	}
	// What the kernel itself counts of guests is no rule, nor is the chain by
	// which daemons know that one of them turned on the forwarding.
	counts := regexp.MustCompile(`(?m)^\s*elements = { [^}]* limit rate [^}]*}\n|^\s*chain ip_forward_was_off {\n\s*}\n+`)
	run, err := filepath.Glob("/run/osxb*")
	if err != nil {
		t.Fatal(err)
	}
	dir := "gone"
	if _, err := os.Stat(l.conf.Dir); !errors.Is(err, os.ErrNotExist) {
		dir = "there"
	}
	return map[string]string{
		"links":      strings.Join(links, " "),
		"rules":      counts.ReplaceAllString(host(t, "nft", "list", "ruleset"), ""),
		"forwarding": forwarding(t),
		"processes":  strings.Join(servers(t, l), " "),
		"/run":       strings.Join(run, " "),
		"folder":     dir,
	}
}

// forwardingPath speaks for the network namespace of who opens it.
const forwardingPath = "/proc/sys/net/ipv4/ip_forward"

// forwarding returns the host's setting.
func forwarding(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(forwardingPath)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// setForwarding changes the host's setting.
func setForwarding(t *testing.T, to string) {
	t.Helper()
	if err := os.WriteFile(forwardingPath, []byte(to), 0); err != nil {
		t.Fatal(err)
	}
}

// servers returns the numbers of the dnsmasqs that l started.
func servers(t *testing.T, l *lab) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), l.conf.Dir) {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// awaitEnd waits until the dnsmasqs that were killed have ended.
func awaitEnd(t *testing.T, l *lab) {
	t.Helper()
	if !until(func() bool { return len(servers(t, l)) == 0 }) {
		t.Fatal("dnsmasq survives kill -9")
	}
}

// compare complains of each trace that differs.
func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for what := range want {
		if got[what] != want[what] {
			t.Errorf("%s are\n%s\nwant\n%s", what, got[what], want[what])
		}
	}
}

func TestDetachGivesAllBack(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	before := traces(t, l)
	_, _ = l.boot(t, network.NAT, 1)
	_, a2 := l.boot(t, network.NAT, 2)
	if mac := bridgeMAC(t); !strings.HasPrefix(mac, "02:") {
		t.Errorf("the bridge took the address %s of a tap, and will lose it", mac)
	}
	server := servers(t, l)

	for range 2 { // the second time there is nothing to do
		if err := l.Detach(t.Context(), id(2)); err != nil {
			t.Fatal(err)
		}
	}
	if got := servers(t, l); !slices.Equal(got, server) {
		t.Errorf("dnsmasq was started again: process %s, was %s", got, server)
	}
	if a := l.address(t, 2); a.IsValid() {
		t.Errorf("address after Detach is %s, want none", a)
	}
	b, err := os.ReadFile(filepath.Join(l.conf.Dir, "nat", "leases"))
	if err != nil || strings.Contains(string(b), a2.String()) || strings.Count(string(b), "\n") != 1 {
		t.Errorf("leases after Detach: %q, %v; want only guest 1's", b, err)
	}
	if taps := strings.Count(host(t, "ip", "-br", "link", "show", "type", "tun"), "osxb"); taps != 1 {
		t.Errorf("%d taps are left, want 1", taps)
	}
	if rules := host(t, "nft", "list", "ruleset"); strings.Contains(rules, mac(2).String()) {
		t.Errorf("rules still know guest 2:\n%s", rules)
	}

	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.address(t, 1).IsValid() == false || len(servers(t, l)) != 1 {
		t.Error("Close took the network from under guest 1")
	}
	if err := l.Detach(t.Context(), id(1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, traces(t, l), before)
}

// A child of the daemon can have a tap open for a moment after the daemon has closed it.
func TestTapIsWaitedFor(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	tap, err := l.Attach(t.Context(), network.NAT, id(1), mac(1), "")
	if err != nil {
		t.Fatal(err)
	}
	first, err := network.OpenTap(tap)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(moment, func() { first.Close() })
	second, err := network.OpenTap(tap)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// The DHCP server itself, without the rules that keep strange cards off,
// serves nobody that is not attached, or no longer.
func TestAddressGoesToKnownCardsOnly(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	one, _ := l.boot(t, network.NAT, 1)
	_, _ = l.boot(t, network.NAT, 2)
	if err := l.Detach(t.Context(), id(2)); err != nil {
		t.Fatal(err)
	}
	host(t, "nft", "delete", "table", "bridge", tableName(t))
	for who, n := range map[string]int{"never attached": 9, "detached": 2} {
		one.run(t, "ip", "link", "set", "eth0", "address", mac(n).String())
		if a := one.ask(t, time.Second); a.IsValid() {
			t.Errorf("a card that was %s got %s", who, a)
		}
	}
}

// Clones of one image often call themselves the same.
func TestClientIdentifierIsNoIdentity(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	one, two := l.attach(t, network.NAT, 1), l.attach(t, network.NAT, 2)
	same := []string{"-C", "-x", "0x3d:ff0102030405"}
	a1, a2 := one.ask(t, patience, same...), two.ask(t, patience, same...)
	if !a1.IsValid() || !a2.IsValid() || a1 == a2 {
		t.Errorf("two clones got %s and %s", a1, a2)
	}
	if b1, b2 := l.address(t, 1), l.address(t, 2); b1 != a1 || b2 != a2 {
		t.Errorf("addresses are %s and %s, they got %s and %s", b1, b2, a1, a2)
	}
}

// tableName returns the name of the only nftables table of ours.
func tableName(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(host(t, "nft", "list", "tables")) {
		if f := strings.Fields(line); strings.HasPrefix(f[2], "osxb_") {
			return f[2]
		}
	}
	t.Fatal("there is no table of ours")
	return ""
}

func TestAllIsFoundAgainAfterRestart(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	one, a1 := l.boot(t, network.NAT, 1)
	before := traces(t, l)

	l.open(t)
	if got := l.address(t, 1); got != a1 {
		t.Errorf("address after the restart is %s, want %s", got, a1)
	}
	for range 3 {
		if err := l.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, traces(t, l), before)

	two, a2 := l.boot(t, network.NAT, 2)
	if !two.reaches(a1) || !one.reaches(a2) {
		t.Error("guests from before and after the restart do not reach each other")
	}
	if got := len(servers(t, l)); got != 1 {
		t.Errorf("%d dnsmasqs run, want 1", got)
	}
}

func TestRepairPutsRightWhatOthersRemoved(t *testing.T) {
	for _, c := range []struct{ name, forwarding string }{
		{"on a host that did not forward", "0"},
		{"on a host that forwarded", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			newHost(t)
			setForwarding(t, c.forwarding)
			repair(t)
		})
	}
}

func repair(t *testing.T) {
	l := newLab(t, nil)
	one, a1 := l.boot(t, network.NAT, 1)
	bridge := strings.Fields(host(t, "ip", "-br", "link", "show", "type", "bridge"))[0]
	for _, c := range []struct {
		name   string
		damage []string
	}{
		{"dnsmasq killed", append([]string{"kill", "-9"}, servers(t, l)...)},
		{"bridge deleted", []string{"ip", "link", "del", bridge}},
		{"tap off the bridge", []string{"sh", "-c", "ip -br link show master " + bridge + " | while read tap x; do ip link set ${tap%@*} nomaster; done"}},
		{"tables flushed", []string{"nft", "flush", "ruleset"}},
		{"forwarding off", []string{"sh", "-c", "echo 0 > " + forwardingPath}},
		{"hosts file removed", []string{"sh", "-c", "rm -r /run/osxb*"}},
	} {
		sub(t, c.name, func(t *testing.T) {
			before := traces(t, l)
			delete(before, "processes")
			host(t, c.damage[0], c.damage[1:]...)
			if c.damage[0] == "kill" {
				awaitEnd(t, l)
			}
			if err := l.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			after := traces(t, l)
			if got := len(servers(t, l)); got != 1 {
				t.Errorf("%d dnsmasqs run, want 1", got)
			}
			if a := one.dhcp(t); a != a1 {
				t.Errorf("guest's address became %s, was %s", a, a1)
			}
			if !one.reaches(gatewayOf(t, bridge)) {
				t.Error("guest does not reach the host")
			}
			// A bridge that was created again comes last in the list of devices.
			sorted := func(s string) string {
				f := strings.Fields(s)
				slices.Sort(f)
				return strings.Join(f, " ")
			}
			before["links"], after["links"] = sorted(before["links"]), sorted(after["links"])
			compare(t, after, before)
		})
	}
}

// What daemons of two data folders do does not touch the other's networks.
func TestDaemonsLiveSideBySide(t *testing.T) {
	t.Parallel()
	newHost(t)
	a, b := newLab(t, nil), newLab(t, nil)
	before := traces(t, a)
	one, a1 := a.boot(t, network.NAT, 1)
	two, a2 := b.boot(t, network.NAT, 2)
	if a1 == a2 || !two.cutOff(a1) {
		t.Errorf("guest %s of one daemon reaches guest %s of another", a2, a1)
	}
	if err := a.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := two.dhcp(t); got != a2 {
		t.Errorf("after the first daemon is gone, a guest of the second got %s, had %s", got, a2)
	}
	if on := forwarding(t); on != "1" {
		t.Error("the first daemon turned forwarding off under the second")
	}
	if err := b.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	compare(t, traces(t, a), before)
	_ = one
}

func TestSweepRemovesWhatNobodyKnows(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	_, _ = l.boot(t, network.NAT, 1)
	_, _ = l.boot(t, network.NAT, 2)
	if err := l.Sweep(t.Context(), func(other string) bool { return other == id(1) }); err != nil {
		t.Fatal(err)
	}
	if l.address(t, 2).IsValid() || !l.address(t, 1).IsValid() {
		t.Error("Sweep left guest 2's lease or took guest 1's")
	}

	// A tap whose machine is in no file, as after a lost folder.
	if err := os.Remove(filepath.Join(l.conf.Dir, "network.json")); err != nil {
		t.Fatal(err)
	}
	if err := l.Sweep(t.Context(), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if left := host(t, "ip", "-br", "link", "show", "type", "tun"); strings.Contains(left, "osxb") {
		t.Errorf("a tap of nobody's is left: %s", left)
	}
}

// Clean turns the host's forwarding off if the Manager turned it on, and leaves
// it as it is otherwise.
func TestForwardingIsRestored(t *testing.T) {
	const docker = "add table ip docker; add chain ip docker p { type nat hook postrouting priority 100; }"
	for _, c := range []struct {
		name   string
		before string
		then   func(t *testing.T, l *lab) // what happens while there is a guest
		want   string
	}{
		{"was off", "0", nil, "0"},
		{"was on", "1", nil, "1"},
		{"was on by another number", "2", nil, "2"},
		{"was off, another masquerades by now", "0", func(t *testing.T, _ *lab) { host(t, "nft", docker) }, "1"},
		{"was off, all tables were flushed", "0", func(t *testing.T, _ *lab) { host(t, "nft", "flush", "ruleset") }, "0"},
		{"was on, another turned it off", "1", func(t *testing.T, _ *lab) { setForwarding(t, "0") }, "0"},
		{"was on, another turned it off and Repair on", "1", func(t *testing.T, l *lab) {
			setForwarding(t, "0")
			if err := l.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			if on := forwarding(t); on != "1" {
				t.Errorf("ip_forward is %s after Repair, want 1", on)
			}
		}, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			newHost(t)
			setForwarding(t, c.before)
			l := newLab(t, nil)
			if _, err := l.Attach(t.Context(), network.NAT, id(1), mac(1), ""); err != nil {
				t.Fatal(err)
			}
			if c.then != nil {
				c.then(t, l)
			}
			if err := l.Clean(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := forwarding(t); got != c.want {
				t.Errorf("ip_forward is %s after Clean, want %s", got, c.want)
			}
		})
	}
}

// Of two daemons the one that goes last turns the forwarding off, whichever of
// them turned it on and whether the other heard of that or not.
func TestLastDaemonRestoresForwarding(t *testing.T) {
	for _, c := range []struct {
		name    string
		before  string
		between func(t *testing.T)
		want    string
	}{
		{"was off", "0", nil, "0"},
		{"was on", "1", nil, "1"},
		{"was on, another turned it off before the second came", "1", func(t *testing.T) { setForwarding(t, "0") }, "0"},
	} {
		for _, stays := range []int{0, 1} {
			t.Run(c.name+", the "+[]string{"first", "second"}[stays]+" stays", func(t *testing.T) {
				t.Parallel()
				newHost(t)
				setForwarding(t, c.before)
				labs := []*lab{newLab(t, nil), newLab(t, nil)}
				for n, l := range labs {
					for card := range 2 {
						if _, err := l.Attach(t.Context(), network.NAT, id(2*n+card), mac(2*n+card), ""); err != nil {
							t.Fatal(err)
						}
					}
					if n == 0 && c.between != nil {
						c.between(t)
					}
				}
				if err := labs[1-stays].Clean(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := forwarding(t); got != "1" {
					t.Errorf("ip_forward is %s after the first Clean, want 1", got)
				}
				if err := labs[stays].Detach(t.Context(), id(2*stays)); err != nil {
					t.Fatal(err)
				}
				if err := labs[stays].Clean(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := forwarding(t); got != c.want {
					t.Errorf("ip_forward is %s after the last Clean, want %s", got, c.want)
				}
			})
		}
	}
}

// Machines that start at once, and ask at once, each get their own address.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	const guests = 8
	own := here(t)
	atOnce := func(verb func(n int) error) {
		t.Helper()
		done := make(chan error, guests)
		for n := range guests {
			go func() {
				if err := own.enter(); err != nil {
					done <- err
					return
				}
				done <- verb(n)
			}()
		}
		for range guests {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	atOnce(func(n int) error {
		_, err := l.Attach(t.Context(), network.NAT, id(n), mac(n), "")
		return err
	})
	seen := map[string]bool{}
	for n := range guests {
		_, a := l.boot(t, network.NAT, n)
		seen[a.String()] = true
	}
	if len(seen) != guests {
		t.Errorf("%d guests share %d addresses", guests, len(seen))
	}
	atOnce(func(n int) error { return l.Detach(t.Context(), id(n)) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// Detach gives the lease back whatever has become of dnsmasq, and leaves one
// behind that serves the others.
func TestDetachFromDamage(t *testing.T) {
	for _, c := range []struct{ name, damage string }{
		{"dnsmasq killed", "kill -9 $1"},
		{"dnsmasq stopped", "kill -STOP $1"},
		{"bridge deleted", "ip link del $2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			newHost(t)
			l := newLab(t, nil)
			_, _ = l.boot(t, network.NAT, 1)
			two, a2 := l.boot(t, network.NAT, 2)
			bridge := strings.Fields(host(t, "ip", "-br", "link", "show", "type", "bridge"))[0]
			host(t, "sh", "-c", c.damage, "sh", servers(t, l)[0], bridge)
			if strings.HasPrefix(c.damage, "kill -9") {
				awaitEnd(t, l)
			}
			if err := l.Detach(t.Context(), id(1)); err != nil {
				t.Fatal(err)
			}
			if l.address(t, 1).IsValid() || l.address(t, 2) != a2 {
				t.Errorf("addresses after Detach: %s and %s, want none and %s", l.address(t, 1), l.address(t, 2), a2)
			}
			if err := l.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := two.dhcp(t); got != a2 {
				t.Errorf("the other guest got %s, had %s", got, a2)
			}
		})
	}
}

func gatewayOf(t *testing.T, bridge string) netip.Addr {
	t.Helper()
	f := strings.Fields(host(t, "ip", "-br", "-4", "addr", "show", bridge))
	ip, _, err := net.ParseCIDR(f[2])
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddr(ip.String())
}
