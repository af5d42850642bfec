package network_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"osx-builder/vm/qemu/network"
)

// The tables are repaired like the other rules, and go with the machine or when it
// starts as an ordinary one.
func TestRewritingIsRepairedAndRemoved(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	one, a1 := l.clone(t, network.NAT, 1)
	l.clone(t, network.NAT, 2)
	l.clone(t, network.HostOnly, 3)
	home := thisSpace(t)
	tables := func() []string {
		var names []string
		for line := range strings.Lines(host(t, "nft", "list", "tables", "netdev")) {
			names = append(names, strings.Fields(line)[2])
		}
		return names
	}
	if got := tables(); len(got) != 3 {
		t.Fatalf("there are tables %q, want three", got)
	}
	for _, name := range tables() {
		host(t, "nft", "delete", "table", "netdev", name)
	}
	if !one.cutOff(firstOf(a1)) {
		t.Error("a clone without rewriting reaches the host")
	}
	if err := l.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !home.reaches(a1) || !one.reaches(firstOf(a1)) {
		t.Error("after the repair the host and the clone do not reach each other")
	}
	for _, spoil := range []string{"flush table netdev %s", "delete table netdev %s"} { // the first leaves the chains
		for _, name := range tables() {
			host(t, "nft", fmt.Sprintf(spoil, name))
		}
		if err := l.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !home.reaches(a1) || !one.reaches(firstOf(a1)) {
			t.Errorf("after the repair of %q the host and the clone do not reach each other", spoil)
		}
	}
	rules := host(t, "nft", "-a", "list", "ruleset") // with handles: a rule that is written again has another
	if err := l.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := host(t, "nft", "-a", "list", "ruleset"); now != rules {
		t.Errorf("a repair of what is whole wrote rules again:\n%s\nbefore:\n%s", now, rules)
	}
	if err := l.Detach(t.Context(), id(2)); err != nil {
		t.Fatal(err)
	}
	if got := tables(); len(got) != 2 {
		t.Errorf("after a machine has gone there are tables %q, want two", got)
	}
	if _, err := l.Attach(t.Context(), network.NAT, id(1), mac(1), ""); err != nil {
		t.Fatal(err)
	}
	one.run(t, "ip", "link", "set", "eth0", "address", mac(1).String())
	if got := one.dhcp(t); got != a1 {
		t.Errorf("as an ordinary machine it got the lease %s, had %s", got, a1)
	}
	if got := tables(); len(got) != 1 {
		t.Errorf("after a clone became an ordinary machine there are tables %q, want one", got)
	}
	if err := l.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := tables(); len(got) != 0 {
		t.Errorf("after cleaning there are tables %q", got)
	}
}

// A network that cannot be set up does not keep the others from being repaired.
func TestRepairOfOneNetworkNeedsNoOther(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	l.clone(t, network.NAT, 1)
	nat := strings.Fields(host(t, "ip", "-br", "link", "show", "type", "bridge"))[0]
	other, a := l.clone(t, network.HostOnly, 2)
	host(t, "nft", "flush", "ruleset")
	host(t, "ip", "link", "delete", nat)
	host(t, "ip", "link", "add", nat, "type", "veth") // which is no bridge
	if err := l.Repair(t.Context()); err == nil || !strings.Contains(err.Error(), nat) {
		t.Errorf("got error %v, want one that names %s", err, nat)
	}
	if !thisSpace(t).reaches(a) || !other.reaches(firstOf(a)) {
		t.Error("the host and the clone of the network that is well do not reach each other")
	}
	host(t, "ip", "link", "delete", nat)
	if err := l.Repair(t.Context()); err != nil {
		t.Errorf("with the name free again: %v", err)
	}
}

// The sign of life of a machine that was started from memory is asked of its card alone: a broadcast would wake all guests.
func TestAliveWakesNobodyElse(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	_, address := l.clone(t, network.NAT, 1)
	host(t, "nft", "add table bridge watch; add chain bridge watch out { type filter hook output priority 0; };"+
		"add rule bridge watch out ether daddr ff:ff:ff:ff:ff:ff counter; add rule bridge watch out ether type arp counter")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.Alive(ctx, network.NAT, address, mac(1)); err != nil {
		t.Error(err)
	}
	silent, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if err := l.Alive(silent, network.NAT, address.Next(), mac(2)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a card that nobody has: got %v, want no answer", err)
	}
	var broadcasts, requests int
	rules := host(t, "nft", "list chain bridge watch out")
	found := regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(rules, 2)
	if len(found) == 2 {
		broadcasts, _ = strconv.Atoi(found[0][1])
		requests, _ = strconv.Atoi(found[1][1])
	}
	if broadcasts != 0 || requests == 0 {
		t.Errorf("the host sent %d broadcasts and %d ARP requests, want none and some:\n%s", broadcasts, requests, rules)
	}
}

// However many machines were started from memory, their tables are repaired, and go with them.
func TestRewritingOfMany(t *testing.T) {
	t.Parallel()
	newHost(t)
	l := newLab(t, nil)
	in := l.inner(t, network.NAT)
	const guests = 40
	var tap string
	for n := range guests {
		var err error
		if tap, _, err = l.AttachInner(t.Context(), network.NAT, id(n), mac(n), "", in); err != nil {
			t.Fatal(err)
		}
	}
	tables := func() int { return strings.Count(host(t, "nft", "list", "tables", "netdev"), "\n") }
	host(t, "nft", "flush", "ruleset")
	if err := l.Repair(t.Context()); err != nil {
		t.Error(err)
	}
	if n := tables(); n != guests {
		t.Errorf("after the repair there are %d tables, want %d", n, guests)
	}
	host(t, "ip", "link", "delete", tap) // whose chains go with it up to Linux 6.15
	if err := l.Repair(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(host(t, "nft", "list", "chains", "netdev"), "chain "); n != 2*guests {
		t.Errorf("after the repair of a tap there are %d chains, want %d", n, 2*guests)
	}
	if err := l.Sweep(t.Context(), func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	if n := tables(); n != 0 {
		t.Errorf("after all machines have gone there are %d tables, want none", n)
	}
}
