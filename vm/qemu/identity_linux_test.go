package qemu_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// inGuest runs a command of the guest's shell that must succeed, and returns what it wrote.
func inGuest(t *testing.T, m vm.Machine, command string) string {
	t.Helper()
	out, ok := guestRun(t, m, "/bin/sh", "-c", command)
	if !ok {
		t.Errorf("%q failed in the guest: %s", command, out)
	}
	return strings.TrimSpace(out)
}

// oldIdentity gives the guest what guests of a distribution have.
const oldIdentity = `mkdir -p /etc/ssh; echo 0123456789abcdef0123456789abcdef >/etc/machine-id; echo 127.0.0.1 localhost >/etc/hosts
for type in ed25519 ecdsa dsa; do echo old >/etc/ssh/ssh_host_${type}_key; chmod 600 /etc/ssh/ssh_host_${type}_key; done`

// renewsIdentity checks that a machine that runs from memory gets an identity of its own.
func (h *memoryHost) renewsIdentity(t *testing.T) {
	m := h.with(t).machine()
	m.Memory, m.Start, m.Name = 256, vm.StartMemory, "web"
	h.with(t).clone(m, h.gold)
	h.with(t).start(m)
	st := h.up(t, m)
	inGuest(t, m, oldIdentity)
	inGuest(t, m, "mkdir /etc/hostname")
	if err := h.RenewIdentity(t.Context(), m); err == nil || !strings.Contains(err.Error(), "cannot write /etc/hostname") {
		t.Errorf("got error %v, want one that says what failed in the guest", err)
	}
	inGuest(t, m, "rmdir /etc/hostname")
	seen := map[string]bool{"old": true}
	for range 2 { // the second time as after an interruption
		if err := h.RenewIdentity(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ecdsa_key"} {
			if text := inGuest(t, m, "cat "+file); seen[text] || text == "" || len(text) < 32 {
				t.Errorf("%s has %q, want something new", file, text)
			} else {
				seen[text] = true
			}
		}
		if now := h.up(t, m); now.IP != st.IP || now.MAC != st.MAC || now.Start != vm.StartMemory || now.NICs[0].IPAddress != st.IP {
			t.Errorf("got %+v, want the address %s and the MAC address %s as before", now, st.IP, st.MAC)
		}
	}
	for command, want := range map[string]string{
		"hostname": "web", "cat /etc/hostname": "web", "grep -c web /etc/hosts": "1",
		"stat -c %a /etc/ssh/ssh_host_ed25519_key": "600", "ls /etc/ssh": "ssh_host_ecdsa_key\nssh_host_ecdsa_key.pub\nssh_host_ed25519_key\nssh_host_ed25519_key.pub",
	} {
		if got := inGuest(t, m, command); got != want {
			t.Errorf("%s: got %q, want %q", command, got, want)
		}
	}
	private, err := ssh.ParsePrivateKey([]byte(inGuest(t, m, "cat /etc/ssh/ssh_host_ed25519_key") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	public, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(inGuest(t, m, "cat /etc/ssh/ssh_host_ed25519_key.pub")))
	if err != nil || string(public.Marshal()) != string(private.PublicKey().Marshal()) || comment != "root@web" {
		t.Errorf("got the public key %v of %q (%v), want that of the private key and root@web", public, comment, err)
	}
	if who := guestAwait(t, m, internetIP+":80"); who != hostOutside {
		t.Errorf("the internet saw %q, want %s", who, hostOutside)
	}
	asked := m
	asked.Guest = &vm.GuestConfig{Hostname: "db"}
	if err := h.RenewIdentity(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	if got := inGuest(t, m, "hostname"); got != "db" {
		t.Errorf("with a host name in the request: got %q, want db", got)
	}
	restart(t, m)
	until(t, harness.Timeout, "an ordinary machine", func() bool {
		now, err := h.Inspect(t.Context(), m)
		return err == nil && now.Power == vm.PoweredOn && now.Start != vm.StartMemory && now.IP == st.IP
	})
}

// Without a guest that can do it there is an error, and the machine is as before.
func TestRenewIdentityOfNoGuest(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	if err := r.RenewIdentity(t.Context(), m); err == nil {
		t.Error("a machine that is not there has an identity")
	}
	if _, err := os.Stat(filepath.Join(m.Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has a folder now: %v", err)
	}
}
