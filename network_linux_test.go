package main_test

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
)

// listRules lists the rules without what the kernel counts of guests.
const listRules = "nft list ruleset | grep -v 'elements = .*limit rate'"

// daemonUser is the user number of a daemon that is not root.
const daemonUser = 54321

// A daemon that is not root, but may set up networks, gives a machine an
// address that it keeps while the daemon is killed and its network broken, and
// -clean-network leaves the host as it was, though the machine runs.
func TestManagedNetwork(t *testing.T) {
	s := newStageAs(t, "+net_admin,+net_raw,+net_bind_service", "-network", "bridge")
	before := s.hostNetwork()
	s.start()
	t.Cleanup(func() {
		if t.Failed() {
			_ = s.Kill() // it may be dead, or alive, wherever the test ended
			s.start()    // to destroy the machine
		}
	})
	v := s.ready(s.create(s.image(tinyvm).Body(small(map[string]any{"forward": []int{8080}}))).ID)
	if v.PortForwards != nil || !slices.Contains(v.Addresses, v.IPAddress) {
		t.Errorf("got forwards %v and %s among %v, want no forwards and the address among its addresses", v.PortForwards, v.IPAddress, v.Addresses)
	}
	boot := s.page(v)["boot_id"]
	if caps := s.capabilities(v.ID); caps != "0000000000000000" {
		t.Errorf("QEMU has capabilities %s, want none", caps)
	}

	rules := s.output(listRules)
	must(t, s.Kill())
	s.output("kill -9 $(cat " + filepath.Join(s.Data, "net", "nat", "dnsmasq.pid") + ")")
	s.output("ip link del $(ip -br link show type bridge | grep -o '^osxb[^ ]*')")
	s.start()
	if again := s.get(v.ID); again.IPAddress != v.IPAddress || s.page(again)["boot_id"] != boot {
		t.Errorf("after the restart: got %+v, want %s and boot %s", again, v.IPAddress, boot)
	}
	if got := s.output(listRules); !sameWords(got, rules) {
		t.Errorf("after the restart the rules are\n%s\nwant\n%s", got, rules)
	}

	must(t, s.Kill())
	if out, err := exec.Command(s.program, "-data", s.Data, "-clean-network").CombinedOutput(); err != nil {
		t.Fatalf("-clean-network: %v: %s", err, out)
	}
	if got := s.hostNetwork(); got != before {
		t.Errorf("after -clean-network the host has\n%s\nwant\n%s", got, before)
	}
	if n := s.machines(); n != 1 {
		t.Errorf("%d machines run, want that -clean-network ended none", n)
	}
	s.start()
	if again := s.get(v.ID); again.IPAddress != "" || again.Status != vm.PoweredOn {
		t.Errorf("without its network the machine has address %q and status %s", again.IPAddress, again.Status)
	}
	s.destroy(v.ID)
}

// Without the right to set up networks machines are on the user network, and
// all who are told that there is no other are told why.
func TestUserNetwork(t *testing.T) {
	s := newStageAs(t, "-all", "-forward", "80")
	s.start()
	a, err := s.Do("GET", "/healthz?verbose=1", "", nil)
	must(t, err)
	var health struct {
		Networks map[vm.NetworkType]vm.NetworkState
	}
	must(t, a.JSON(&health))
	if n := health.Networks; !n[vm.NAT].Available || !n[vm.HostOnly].Available || n[vm.Bridged].Available {
		t.Errorf("got %+v, want nat and hostonly", n)
	}
	a, err = s.Do("POST", "/vms", "application/json", s.image(tinyvm).Body(small(map[string]any{"network_type": "bridged"})))
	must(t, err)
	var refused vm.Error
	must(t, json.Unmarshal(a.Body, &refused))
	if a.Status != http.StatusBadRequest || refused.Code != vm.CodeNetworkUnavailable {
		t.Errorf("bridged: got %d %s, want 400 %s", a.Status, a.Body, vm.CodeNetworkUnavailable)
	}
	for _, why := range []string{refused.Message, health.Networks[vm.Bridged].Reason} {
		if !strings.Contains(why, "CAP_NET_ADMIN") || !strings.Contains(why, "-bridge NAME") {
			t.Errorf("got reason %q, want the capability that lacks, and the way out", why)
		}
	}

	v := s.ready(s.create(s.image(tinyvm).Body(small(map[string]any{"network_type": "hostonly", "forward": []int{8080}}))).ID)
	if v.IPAddress != "127.0.0.1" || len(v.PortForwards) != 3 {
		t.Errorf("got address %s, forwards %v, want 127.0.0.1 and ports 22, 80 and 8080", v.IPAddress, v.PortForwards)
	}
	if page := s.page(v); page["mac"] != v.MACAddress {
		t.Errorf("the guest answers %v, want MAC %s", page, v.MACAddress)
	}
	s.banner(v)
	must(t, s.Stop())
	s.start()
	if again := s.get(v.ID); !slices.Equal(again.PortForwards, v.PortForwards) || s.page(again)["mac"] != v.MACAddress {
		t.Errorf("after a restart: got forwards %v, want %v", again.PortForwards, v.PortForwards)
	}
}

// newStageAs prepares a stage whose daemon is a user that is not root and has
// these capabilities, as setpriv writes them. A test that is not root itself
// runs the daemon as it is.
func newStageAs(t *testing.T, capabilities string, args ...string) *stage {
	t.Helper()
	s := bareStage(t, nil, args...)
	if os.Geteuid() != 0 {
		if capabilities != "-all" {
			without(t, "this test gives a daemon capabilities and needs root")
		}
		return s
	}
	must(t, os.Chmod(filepath.Dir(binary), 0o711))
	must(t, os.Chown(s.Data, daemonUser, daemonUser))
	s.program = filepath.Join(t.TempDir(), "daemon")
	tun := filepath.Join(t.TempDir(), "tun")
	// Where udev runs, every user may open /dev/net/tun; elsewhere, in
	// containers, this daemon gets one that it may.
	script := fmt.Sprintf(`#!/bin/sh
[ -e %[1]s ] || mknod -m 666 %[1]s c 10 200 || exit
exec unshare --mount --propagation private sh -c 'mount --bind %[1]s /dev/net/tun && exec "$@"' sh \
	setpriv --reuid %[2]d --regid %[2]d --clear-groups --inh-caps -all,%[3]s --ambient-caps -all,%[3]s %[4]s "$@"
`, tun, daemonUser, capabilities, binary)
	must(t, os.WriteFile(s.program, []byte(script), 0o755))
	return s
}

// banner waits for what the guest tells a client of port 22.
func (s *stage) banner(v vm.VM) {
	s.t.Helper()
	i := slices.IndexFunc(v.PortForwards, func(f vm.PortForward) bool { return f.Guest == 22 })
	c, err := net.DialTimeout("tcp", net.JoinHostPort(v.IPAddress, strconv.Itoa(v.PortForwards[i].Host)), 10*time.Second)
	must(s.t, err)
	defer c.Close()
	must(s.t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "tinyvm" {
		s.t.Errorf("port 22 answers %q, %v, want the guest's banner", b, err)
	}
}

// output runs a shell's command.
func (s *stage) output(command string) string {
	s.t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// hostNetwork is what -clean-network leaves as it found it.
func (s *stage) hostNetwork() string {
	s.t.Helper()
	return s.output("ip link; ip route; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward; ls /run | grep osxb; ps -A -ww -o args= | grep '^[^ ]*dnsmasq.*" + s.Data + "' || true")
}

// capabilities are those in force of the machine's QEMU.
func (s *stage) capabilities(id string) string {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process(id)))
	must(s.t, err)
	_, after, _ := strings.Cut(string(status), "CapEff:\t")
	caps, _, _ := strings.Cut(after, "\n")
	return caps
}

// sameWords compares listings of which nft chooses the order within sets.
func sameWords(a, b string) bool {
	sorted := func(s string) []string {
		words := strings.FieldsFunc(s, func(c rune) bool { return strings.ContainsRune(" \n\t,", c) })
		slices.Sort(words)
		return words
	}
	return slices.Equal(sorted(a), sorted(b))
}
