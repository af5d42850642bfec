package qemu_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest/harness"
)

// The LAN that bridged machines are plugged into, with a DHCP server on it.
const (
	lanBridge = "br0"
	lanHost   = "192.0.2.1"
	lanLease  = "192.0.2.77"
)

// dockerRules are what Docker has of nftables, with a policy that lets pass.
const dockerRules = `table ip filter {
	chain DOCKER-USER { }
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
		jump DOCKER-USER
		oifname "docker0" ct state related,established accept
		iifname "docker0" accept
	}
}`

// busybox has the guest's programs: which of them have a name of their own is
// Debian's choice.
const busybox = "/bin/busybox"

// bridgedHost is a host with machines on all of its networks, in a network namespace
// of its own.
type bridgedHost struct {
	*testDriver
	options  qemu.Options
	internet space
	bare     string // what the host's network was before
	guests   []guest
}

// guest is a machine that runs.
type guest struct {
	vm.Machine
	status vm.Status
	ip     netip.Addr
}

// Six real guests on three networks: what they reach and who reaches them,
// what becomes of them under damage, and that nothing is left of them.
func TestGuestsOnBridges(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	if !inNamespace(t) {
		return
	}
	h := newHall(t)
	h.boot(vm.NAT, vm.NAT, vm.NAT, vm.NAT, vm.HostOnly, vm.Bridged)
	nat, hostOnly, bridged := h.guests[:4], h.guests[4], h.guests[5]
	host := serveNames(t, func(f func() error) error { return f() }, ":8081")

	t.Run("each has an address of its own that answers", func(t *testing.T) {
		seen, cards := map[netip.Addr]bool{}, map[string]bool{}
		for _, g := range h.guests {
			mac, err := net.ParseMAC(g.status.MAC)
			if err != nil || mac[0]&3 != 2 || cards[g.status.MAC] {
				t.Errorf("got MAC address %q (%v), want one that is locally administered and no other's", g.status.MAC, err)
			}
			cards[g.status.MAC] = true
			if seen[g.ip] || g.status.Forwards != nil || !slices.Contains(g.status.Addresses, g.ip.String()) {
				t.Errorf("got %+v, want an address that no other has, among its addresses, and no forwards", g.status)
			}
			seen[g.ip] = true
			h.answers(t, g)
		}
		if bridged.ip.String() != lanLease {
			t.Errorf("got %s on the LAN, want its DHCP server's %s", bridged.ip, lanLease)
		}
	})
	t.Run("nat guests reach each other, the host and the internet", func(t *testing.T) {
		if page := guestAwait(t, nat[0].Machine, nat[3].ip.String()+":80"); !strings.Contains(page, nat[3].status.MAC) {
			t.Errorf("got %q, want the other guest's page", page)
		}
		if who := guestAwait(t, nat[1].Machine, internetIP+":80"); who != hostOutside {
			t.Errorf("the internet saw %q, want the host's %s", who, hostOutside)
		}
		if who := guestAwait(t, nat[2].Machine, h.gateway(t, nat[2])+host); who != nat[2].ip.String() {
			t.Errorf("the host saw %q, want %s", who, nat[2].ip)
		}
	})
	t.Run("every card of a guest has an address on its own network, and no other one", func(t *testing.T) {
		g := nat[3]
		until(t, harness.Timeout, "three addresses", func() bool {
			g.status = h.inspect(g.Machine)
			return len(g.status.NICs) == 3 && g.status.NICs[1].IPAddress != "" && g.status.NICs[2].IPAddress != ""
		})
		subnet := netip.PrefixFrom(hostOnly.ip, 24).Masked()
		for i, n := range g.status.NICs {
			want, a := vm.HostOnly, netip.MustParseAddr(n.IPAddress)
			if i == 0 {
				want = vm.NAT
			}
			if n.NetworkType != want || subnet.Contains(a) != (i > 0) || !slices.Contains(g.status.Addresses, n.IPAddress) {
				t.Errorf("card %d: got %+v and addresses %v, want one of %s on the %s network", i, n, g.status.Addresses, subnet, want)
			}
		}
		if g.status.IP != g.status.NICs[0].IPAddress || len(g.status.Warnings) == 0 || !slices.ContainsFunc(g.status.Warnings, func(w vm.Warning) bool {
			return w.Code == vm.WarningNetworkReplaced && strings.Contains(w.Message, "ethernet2") && strings.Contains(w.Message, "custom")
		}) {
			t.Errorf("got %+v, want the first card's address, and a warning about the network of ethernet2", g.status)
		}
		if out, ok := guestRun(t, g.Machine, busybox, "ifconfig", "eth2", "down"); !ok {
			t.Fatalf("the guest's third card does not go down: %s", out)
		}
		// While both were up, the guest answered by either of them, and what has the other one's address is not let through.
		second := netip.MustParseAddr(g.status.NICs[1].IPAddress)
		until(t, harness.Timeout, "the guest's page by its second card", func() bool { _, ok := pageOf(second); return ok })
		for _, a := range []string{h.free(t, hostOnly).String(), hostOnly.ip.String()} {
			if out, ok := guestRun(t, g.Machine, busybox, "ifconfig", "eth1", a, "netmask", "255.255.255.0"); !ok {
				t.Fatalf("the guest's second card does not become %s: %s", a, out)
			}
			if page, ok := guestGet(t, g.Machine, h.gateway(t, hostOnly)+host); ok {
				t.Errorf("the host answered the second card at %s, which is not its own, with %q", a, page)
			}
		}
		h.answers(t, hostOnly)
	})
	t.Run("the internet reaches no guest that is behind the host", func(t *testing.T) {
		for _, g := range h.guests[:5] {
			if h.internet.connects(g.ip) {
				t.Errorf("the internet reached the %s guest at %s", g.Network, g.ip)
			}
		}
	})
	t.Run("hostonly reaches the host and no more", func(t *testing.T) {
		if who := guestAwait(t, hostOnly.Machine, h.gateway(t, hostOnly)+host); who != hostOnly.ip.String() {
			t.Errorf("the host saw %q, want %s", who, hostOnly.ip)
		}
		for _, address := range []string{internetIP, nat[0].ip.String(), bridged.ip.String()} {
			if page, ok := guestGet(t, hostOnly.Machine, address+":80"); ok {
				t.Errorf("got %q from %s, want nothing", page, address)
			}
		}
		if page, ok := guestGet(t, nat[0].Machine, hostOnly.ip.String()+":80"); ok {
			t.Errorf("a nat guest got %q from the hostonly guest", page)
		}
	})
	t.Run("a guest that takes another's address is cut off, and not believed", func(t *testing.T) {
		thief, victim := nat[3], nat[0]
		home := h.gateway(t, thief) + host
		h.become(t, thief, victim.ip)
		if who, ok := guestGet(t, thief.Machine, home); ok {
			t.Errorf("the host spoke to the thief and saw %q", who)
		}
		if got := h.inspect(thief.Machine).IP; got != thief.ip.String() {
			t.Errorf("the thief's address: got %q, want its lease %s", got, thief.ip)
		}
		h.answers(t, victim)
		h.become(t, thief, thief.ip)
		if who := guestAwait(t, thief.Machine, home); who != thief.ip.String() {
			t.Errorf("with its own address again: the host saw %q, want %s", who, thief.ip)
		}
	})
	t.Run("the guest's agent reports new addresses", func(t *testing.T) {
		g, six := nat[2], "2001:db8::7"
		other := h.free(t, g)
		h.become(t, g, other)
		if _, ok := guestRun(t, g.Machine, busybox, "ip", "addr", "add", six+"/64", "dev", "eth0"); !ok {
			t.Fatal("the guest takes no IPv6 address")
		}
		st := h.inspect(g.Machine)
		if st.IP != other.String() || !slices.Equal(st.Addresses, []string{other.String(), six}) {
			t.Errorf("got %s and %v, want %s, and IPv6 with it, but for what is valid on the link alone", st.IP, st.Addresses, other)
		}
		h.become(t, g, g.ip)
	})
	t.Run("where another firewall drops what it forwards, its way out helps", func(t *testing.T) {
		if said := h.Describe(t.Context())["firewall"]; said != "" {
			t.Errorf("of a firewall that lets pass: got %q", said)
		}
		h.run("nft", "chain", "ip", "filter", "FORWARD", "{ policy drop; }")
		if said := h.Describe(t.Context())["firewall"]; !strings.Contains(said, "DOCKER-USER -i "+h.bridgeOf(t, nat[1])) {
			t.Errorf("of a firewall that drops: got %q, want the way out", said)
		}
		if who, ok := guestGet(t, nat[1].Machine, internetIP+":80"); ok {
			t.Errorf("the internet saw %q through a firewall that drops", who)
		}
		b := h.bridgeOf(t, nat[1])
		h.run("nft", "add", "rule", "ip", "filter", "DOCKER-USER", "iifname", b, "accept")
		h.run("nft", "add", "rule", "ip", "filter", "DOCKER-USER", "oifname", b, "ct", "state", "related,established", "accept")
		if who := guestAwait(t, nat[1].Machine, internetIP+":80"); who != hostOutside {
			t.Errorf("with the rules that the log names, the internet saw %q, want the host's %s", who, hostOutside)
		}
		h.run("nft", "flush", "chain", "ip", "filter", "DOCKER-USER")
		h.run("nft", "chain", "ip", "filter", "FORWARD", "{ policy accept; }")
	})
	t.Run("damage is put right at the next start", func(t *testing.T) {
		rules := h.rules(t)
		killServer(t, h.data, "nat")
		h.run("ip", "link", "del", h.bridgeOf(t, nat[0]))
		h.dropRules(t)
		h.reopen(t, false)
		for _, g := range h.guests {
			h.answers(t, g)
		}
		if got := h.rules(t); got != rules {
			t.Errorf("got rules\n%s\nwant those of before\n%s", got, rules)
		}
		if who := guestAwait(t, nat[1].Machine, internetIP+":80"); who != hostOutside {
			t.Errorf("the internet saw %q, want the host's %s", who, hostOutside)
		}
	})
	t.Run("damage is put right while the daemon runs", func(t *testing.T) {
		rules := h.rules(t)
		killServer(t, h.data, "nat")
		h.run("ip", "link", "del", h.bridgeOf(t, hostOnly))
		h.dropRules(t)
		until(t, harness.Timeout, "the guest's page", func() bool { _, ok := pageOf(hostOnly.ip); return ok })
		if got := h.rules(t); got != rules {
			t.Errorf("got rules\n%s\nwant those of before\n%s", got, rules)
		}
		if said, ok := guestRun(t, nat[0].Machine, busybox, "udhcpc", "-i", "eth0", "-n", "-q", "-t", "60", "-s", "/bin/true"); !ok {
			t.Errorf("a guest gets no lease any more: %s", said)
		}
	})
	t.Run("isolation cuts guests from each other and not from the host", func(t *testing.T) {
		h.reopen(t, true)
		if page, ok := guestGet(t, nat[0].Machine, nat[1].ip.String()+":80"); ok {
			t.Errorf("got %q from another guest", page)
		}
		h.answers(t, nat[1])
	})
	t.Run("cleaning leaves nothing, though guests run", func(t *testing.T) {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if got := h.network(t); !strings.Contains(got, "osxb") {
			t.Errorf("got network\n%s\nwithout a device of ours, though guests are attached", got)
		}
		if err := qemu.CleanNetworks(t.Context(), h.options); err != nil {
			t.Fatal(err)
		}
		if got := h.network(t); got != h.bare {
			t.Errorf("got network\n%s\nwant that of before\n%s", got, h.bare)
		}
	})
}

// newHall makes the LAN and the internet, and a driver that uses them.
func newHall(t *testing.T) *bridgedHost {
	t.Helper()
	h := &bridgedHost{testDriver: newTestDriver(t), internet: newInternet(t)}
	t.Cleanup(func() {
		if t.Failed() {
			h.show(t)
		}
	})
	h.run("ip", "link", "add", lanBridge, "type", "bridge", "stp_state", "0")
	h.run("ip", "addr", "add", lanHost+"/24", "dev", lanBridge)
	h.run("ip", "link", "set", lanBridge, "up")
	h.run("nft", dockerRules)
	serveDNSMasq(t, "--port=0", "--interface="+lanBridge, "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
		"--dhcp-leasefile="+filepath.Join(h.data, "lan"), "--dhcp-range="+lanLease+","+lanLease)
	h.options = options(h.data)
	h.options.Network, h.options.Bridge = "bridge", lanBridge
	h.bare = h.network(t)
	h.reopen(t, false)
	return h
}

// show prints what may say why a test failed: the host's network, and the logs
// of the servers and of each machine.
func (h *bridgedHost) show(t *testing.T) {
	t.Helper()
	t.Logf("the host's network:\n%s", h.network(t))
	for _, pattern := range []string{"net/*/dnsmasq.log", "vms/*/serial.log", "vms/*/qemu.log"} {
		files, err := filepath.Glob(filepath.Join(h.data, pattern))
		if err != nil {
			t.Error(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			t.Logf("%s (%v):\n%s", f, err, text[max(0, len(text)-16<<10):])
		}
	}
}

// reopen is a restart of the daemon: the driver of before is forgotten as it
// stands, with its machines running.
func (h *bridgedHost) reopen(t *testing.T, isolate bool) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.options.Isolate = isolate
	d, err := openDriver(h.options)
	if err != nil {
		t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = d.Close() }) // the whole test's, as the driver outlives the part that opened it
	h.Driver = d
	if err := d.Sweep(t.Context(), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
}

// boot starts a small machine on each of the networks and waits until all are
// up.
func (h *bridgedHost) boot(networks ...vm.NetworkType) {
	h.t.Helper()
	gold := h.tinyvm()
	for i, n := range networks {
		m := h.machine()
		m.CPUs, m.Memory, m.Network, m.Forward = 1, 128, n, []int{8080}
		if i == 3 {
			addLines(h.t, gold, slices.Concat(nic(1, "vmxnet3"), nic(2, "vmxnet3"))...)
			h.run("sed", "-i", `s/^ethernet1.connectionType.*/ethernet1.connectionType = "hostonly"/; s/^ethernet2.connectionType.*/ethernet2.connectionType = "custom"/`, gold)
		}
		h.clone(m, gold)
		if i == 3 {
			h.run("sed", "-i", `/^ethernet[12]/d`, gold)
		}
		h.guests = append(h.guests, guest{Machine: m})
	}
	var starts sync.WaitGroup
	for _, g := range h.guests {
		starts.Go(func() {
			if err := h.Start(h.t.Context(), g.Machine); err != nil {
				h.t.Errorf("starting on %s: %v", g.Network, err)
			}
		})
	}
	starts.Wait()
	for i := range h.guests {
		g := &h.guests[i]
		until(h.t, harness.Timeout, "the guest's agent and address", func() bool {
			g.status = h.inspect(g.Machine)
			return g.status.Tools == vm.ToolsRunning && g.status.IP != ""
		})
		g.ip = netip.MustParseAddr(g.status.IP)
	}
}

// answers checks that the guest has the address that it got and that the page
// there is its own.
func (h *bridgedHost) answers(t *testing.T, g guest) {
	t.Helper()
	if got := h.inspect(g.Machine).IP; got != g.ip.String() {
		t.Errorf("got address %q, want %s", got, g.ip)
	}
	var page string
	until(t, harness.Timeout, "the guest's page", func() (ok bool) { page, ok = pageOf(g.ip); return ok })
	if !strings.Contains(page, g.status.MAC) {
		t.Errorf("got %q at %s, want the page of %s", page, g.ip, g.status.MAC)
	}
}

// gateway is the host's address on the guest's network.
func (h *bridgedHost) gateway(t *testing.T, g guest) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if p := netip.MustParsePrefix(a.String()); p.Contains(g.ip) {
			return p.Addr().String()
		}
	}
	t.Fatalf("the host has no address beside %s in %v", g.ip, addresses)
	return ""
}

// bridgeOf is the device that has the gateway of the guest's network.
func (h *bridgedHost) bridgeOf(t *testing.T, g guest) string {
	t.Helper()
	out, err := exec.Command("ip", "-o", "route", "get", g.ip.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(out))
	return fields[slices.Index(fields, "dev")+1]
}

// become gives the guest's card the address.
func (h *bridgedHost) become(t *testing.T, g guest, a netip.Addr) {
	t.Helper()
	if out, ok := guestRun(t, g.Machine, busybox, "ifconfig", "eth0", a.String(), "netmask", "255.255.255.0"); !ok {
		t.Fatalf("the guest does not become %s: %s", a, out)
	}
}

// free returns an address of g's subnet, a /24, that neither a guest nor the host has.
func (h *bridgedHost) free(t *testing.T, g guest) netip.Addr {
	t.Helper()
	taken := []string{h.gateway(t, g)}
	for _, other := range h.guests {
		for _, n := range h.inspect(other.Machine).NICs {
			taken = append(taken, n.IPAddress)
		}
	}
	b := netip.PrefixFrom(g.ip, 24).Masked().Addr().Next()
	for slices.Contains(taken, b.String()) {
		b = b.Next()
	}
	return b
}

// dropRules removes our tables of nftables.
func (h *bridgedHost) dropRules(t *testing.T) {
	t.Helper()
	out, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.HasPrefix(f[2], "osxb") {
			h.run("nft", append([]string{"delete"}, f...)...)
		}
	}
}

// network is what the host's network consists of: devices, rules, servers, and
// whether it forwards.
func (h *bridgedHost) network(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", "ip -br link | awk '{ print $1 }' | sort; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward; ps -A -ww -o args= | grep '^[^ ]*dnsmasq.*"+h.data+"' || true").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// rules are those of nftables, in an order that does not change and without
// what the kernel counts of guests.
func (h *bridgedHost) rules(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	counts := regexp.MustCompile(`(?m)^\s*elements = { [^}]* limit rate [^}]*}\n`)
	words := strings.FieldsFunc(counts.ReplaceAllString(string(out), ""), func(c rune) bool { return c == ' ' || c == '\n' || c == '\t' || c == ',' })
	slices.Sort(words)
	return strings.Join(words, "\n")
}

// killServer ends the dnsmasq of a network as an accident does.
func killServer(t *testing.T, data, network string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, "net", network, "dnsmasq.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// pageOf fetches the guest's page.
func pageOf(ip netip.Addr) (page string, ok bool) { return served("http://" + ip.String() + "/") }
