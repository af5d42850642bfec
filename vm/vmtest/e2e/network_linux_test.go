package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// listRules lists the rules without the kernel's counters of guests.
const listRules = `nft list ruleset | sed -z 's/\n[^\n]*elements = {[^}]* limit rate [^}]*}//g'`

// daemonUID is the UID of a daemon that is not root.
const daemonUID = 54321

// A daemon that is not root but has the capabilities for networks gives a machine an
// address. The machine keeps it after the daemon is killed and its bridge and DHCP
// server are removed. -clean-network restores the host's network while the machine
// runs.
func TestManagedNetwork(t *testing.T) {
	t.Parallel()
	if !e2e.IsolateTest(t) {
		return
	}
	s := newUnprivileged(t, "+net_admin,+net_raw,+net_bind_service", "-network", "bridge")
	before := hostNetwork(s)
	s.Start()
	t.Cleanup(func() {
		if t.Failed() {
			_ = s.Kill() // it runs or not, depending on where the test failed
			s.Start()    // to destroy the machine at the end
		}
	})
	body := s.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{
		"forward": []int{8080}, "ready_when": map[string]any{"port": 22}, "name": "web",
	}))
	v := s.WaitReady(s.Create(body).ID)
	server := v.IPAddress[:strings.LastIndex(v.IPAddress, ".")] + ".1"
	if out := shell(s, "busybox nslookup -type=a web.vm.internal "+server); !strings.Contains(out, v.IPAddress) {
		t.Errorf("the DNS server says %s, want %s", out, v.IPAddress)
	}
	if v.PortForwards != nil || !slices.Contains(v.Addresses, v.IPAddress) {
		t.Errorf("got forwards %v, address %s and addresses %v, want no forwards and the address among the addresses",
			v.PortForwards, v.IPAddress, v.Addresses)
	}
	boot := s.GuestPage(v)["boot_id"]
	if caps := capabilities(s, v.ID); caps != "0000000000000000" {
		t.Errorf("QEMU has capabilities %s, want none", caps)
	}

	rules := shell(s, listRules)
	harness.Must(t, s.Kill())
	shell(s, "kill -9 $(cat "+filepath.Join(s.Data, "net", "nat", "dnsmasq.pid")+")")
	shell(s, "ip link del $(ip -br link show type bridge | grep -o '^osxb[^ ]*')")
	s.Start()
	if again := s.Get(v.ID); again.IPAddress != v.IPAddress || s.GuestPage(again)["boot_id"] != boot {
		t.Errorf("after the restart: got %+v, want %s and boot %s", again, v.IPAddress, boot)
	}
	if got := shell(s, listRules); !sameWords(got, rules) {
		t.Errorf("after the restart the rules are\n%s\nwant\n%s", got, rules)
	}

	harness.Must(t, s.Kill())
	if out, err := exec.Command(s.Program, "-data", s.Data, "-clean-network").CombinedOutput(); err != nil {
		t.Fatalf("-clean-network: %v: %s", err, out)
	}
	if got := hostNetwork(s); got != before {
		t.Errorf("the host's network after -clean-network:\n%s\nwant\n%s", got, before)
	}
	if n := s.QEMUCount(); n != 1 {
		t.Errorf("%d machines run after -clean-network, want 1", n)
	}
	s.Start()
	if again := s.Get(v.ID); again.IPAddress != "" || again.Status != vm.PoweredOn {
		t.Errorf("after -clean-network the machine has address %q and status %s, want no address and powered-on",
			again.IPAddress, again.Status)
	}
	s.Destroy(v.ID)
}

// Without the capabilities for networks, machines have QEMU's user network. The
// health and the error for other networks say why.
func TestUserNetwork(t *testing.T) {
	t.Parallel()
	s := newUnprivileged(t, "-all", "-forward", "80")
	s.Start()
	a, err := s.Do("GET", "/healthz?verbose=1", "", nil)
	harness.Must(t, err)
	var health struct {
		Networks map[vm.NetworkType]vm.NetworkState
	}
	harness.Must(t, a.JSON(&health))
	if n := health.Networks; !n[vm.NAT].Available || !n[vm.HostOnly].Available || n[vm.Bridged].Available {
		t.Errorf("got %+v, want nat and hostonly", n)
	}
	body := s.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"network_type": "bridged"}))
	a, err = s.Do("POST", "/vms", "application/json", body)
	harness.Must(t, err)
	var refused vm.Error
	harness.Must(t, json.Unmarshal(a.Body, &refused))
	if a.Status != http.StatusBadRequest || refused.Code != vm.CodeNetworkUnavailable {
		t.Errorf("bridged: got %d %s, want 400 %s", a.Status, a.Body, vm.CodeNetworkUnavailable)
	}
	for _, reason := range []string{refused.Message, health.Networks[vm.Bridged].Reason} {
		if !strings.Contains(reason, "CAP_NET_ADMIN") || !strings.Contains(reason, "-bridge NAME") {
			t.Errorf("got reason %q, want CAP_NET_ADMIN and -bridge NAME in it", reason)
		}
	}

	body = s.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{
		"network_type": "hostonly", "forward": []int{8080}, "ready_when": map[string]any{"port": 80, "http": "/"},
	}))
	v := s.WaitReady(s.Create(body).ID)
	if v.IPAddress != "127.0.0.1" || len(v.PortForwards) != 3 {
		t.Errorf("got address %s, forwards %v, want 127.0.0.1 and ports 22, 80 and 8080", v.IPAddress, v.PortForwards)
	}
	if page := s.GuestPage(v); page["mac"] != v.MACAddress {
		t.Errorf("the guest's page is %v, want MAC %s", page, v.MACAddress)
	}
	checkBanner(s, v)
	harness.Must(t, s.Stop())
	s.Start()
	again := s.Get(v.ID)
	if !slices.Equal(again.PortForwards, v.PortForwards) || s.GuestPage(again)["mac"] != v.MACAddress {
		t.Errorf("after a restart: got forwards %v, want %v", again.PortForwards, v.PortForwards)
	}
}

// newUnprivileged returns a harness whose daemon runs as daemonUID with these
// capabilities, in the syntax of setpriv. The daemon is not started yet. If the test
// is not root, the daemon has the test's user and capabilities.
func newUnprivileged(t *testing.T, capabilities string, args ...string) *harness.Harness {
	t.Helper()
	s := harness.NewStopped(t, nil, args...)
	if os.Geteuid() != 0 {
		if capabilities != "-all" {
			harness.Without(t, "this test starts a daemon with capabilities and needs root")
		}
		return s
	}
	harness.Must(t, os.Chown(s.Data, daemonUID, daemonUID))
	s.Program = filepath.Join(t.TempDir(), "daemon")
	tun := filepath.Join(t.TempDir(), "tun")
	// If udev runs, every user may open /dev/net/tun. In containers it often does
	// not, so this daemon gets a device of its own.
	script := fmt.Sprintf(`#!/bin/sh
[ -e %[1]s ] || mknod -m 666 %[1]s c 10 200 || exit
exec unshare --mount --propagation private sh -c 'mount --bind %[1]s /dev/net/tun && exec "$@"' sh \
	setpriv --reuid %[2]d --regid %[2]d --clear-groups --inh-caps -all,%[3]s --ambient-caps -all,%[3]s %[4]s "$@"
`, tun, daemonUID, capabilities, harness.Binary(t))
	vmtest.WriteProgram(t, s.Program, script)
	return s
}

// checkBanner checks the banner that the guest sends to clients of port 22.
func checkBanner(s *harness.Harness, v vm.VM) {
	s.T.Helper()
	i := slices.IndexFunc(v.PortForwards, func(f vm.PortForward) bool { return f.Guest == 22 })
	c, err := net.DialTimeout("tcp", net.JoinHostPort(v.IPAddress, strconv.Itoa(v.PortForwards[i].Host)), harness.Timeout)
	harness.Must(s.T, err)
	defer c.Close()
	harness.Must(s.T, c.SetReadDeadline(time.Now().Add(harness.Timeout)))
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "tinyvm" {
		s.T.Errorf("port 22: got %q, %v, want the guest's banner", b, err)
	}
}

// shell runs a shell command.
func shell(s *harness.Harness, command string) string {
	s.T.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		s.T.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// hostNetwork returns the state of the host's network that -clean-network must
// restore.
func hostNetwork(s *harness.Harness) string {
	s.T.Helper()
	return shell(s, "ip link; ip route; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward; ls /run | grep osxb; "+
		"ps -A -ww -o args= | grep '^[^ ]*dnsmasq.*"+s.Data+"' || true")
}

// capabilities returns the effective capabilities of the machine's QEMU.
func capabilities(s *harness.Harness, id string) string {
	s.T.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.QEMUPID(id)))
	harness.Must(s.T, err)
	_, after, _ := strings.Cut(string(status), "CapEff:\t")
	caps, _, _ := strings.Cut(after, "\n")
	return caps
}

// sameWords reports whether two listings have the same words. The order of nft's
// sets is not defined.
func sameWords(a, b string) bool {
	sorted := func(s string) []string {
		words := strings.FieldsFunc(s, func(c rune) bool { return strings.ContainsRune(" \n\t,", c) })
		slices.Sort(words)
		return words
	}
	return slices.Equal(sorted(a), sorted(b))
}
