package qemu_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
)

// tinyvm unpacks the real guest that `make image` builds and returns its .vmx.
func (r *rig) tinyvm() string {
	r.t.Helper()
	return r.unpacked("tinyvm.tar.gz")
}

// unpacked unpacks a variant of the real guest and returns its .vmx.
func (r *rig) unpacked(variant string) string {
	r.t.Helper()
	archive := filepath.Join("..", "..", "build", variant)
	if other := os.Getenv("OSXB_TINYVM"); other != "" && variant == "tinyvm.tar.gz" {
		archive = other
	}
	if _, err := os.Stat(archive); err != nil {
		without(r.t, fmt.Sprintf("this test boots the guest image that `make image` builds: %v", err))
	}
	gold := filepath.Join(r.data, "gold")
	if err := os.Mkdir(gold, 0o700); err != nil {
		r.t.Fatal(err)
	}
	r.run("tar", "-xzf", archive, "-C", gold)
	found, err := filepath.Glob(filepath.Join(gold, "*", "*.vmx"))
	if err != nil || len(found) != 1 {
		r.t.Fatalf("got .vmx files %q (%v) in %s, want one", found, err, archive)
	}
	return found[0]
}

// boots starts the real guest and returns its state once it is up, with the
// page at url(state).
func (r *rig) boots(m vm.Machine, url func(vm.Status) string) (st vm.Status, page string) {
	r.t.Helper()
	return r.bootsFrom(m, r.tinyvm(), url)
}

// bootsFrom is boots of an image that is unpacked already.
func (r *rig) bootsFrom(m vm.Machine, gold string, url func(vm.Status) string) (st vm.Status, page string) {
	r.t.Helper()
	r.clone(m, gold)
	r.start(m)
	defer func() {
		if r.t.Failed() {
			r.t.Logf("last seen: %+v; serial log:\n%s", st, serial(m))
		}
	}()
	until(r.t, 60*time.Second, "the guest's agent and address", func() bool {
		st = r.inspect(m)
		return st.Up && st.Tools == vm.ToolsRunning && st.IP != ""
	})
	until(r.t, 30*time.Second, "the guest's page", func() (ok bool) {
		page, ok = served(url(st))
		return ok
	})
	return st, page
}

// served is a page of a guest that may not be up yet.
func served(url string) (page string, ok bool) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err == nil && response.StatusCode == http.StatusOK
}

// A real guest on the user network: its agent answers, and its page is at the
// forwarded port and names the MAC address that Inspect does.
func TestGuestOnUserNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.machine()
	m.Memory = 256
	st, page := r.boots(m, func(st vm.Status) string {
		return fmt.Sprintf("http://127.0.0.1:%d/", st.Forwards[1].Host)
	})
	if st.IP != "127.0.0.1" || st.CPUs != 2 || st.Memory != 256 {
		t.Errorf("got %+v, want 127.0.0.1, 2 processors and 256 MiB", st)
	}
	if !strings.Contains(page, st.MAC) {
		t.Errorf("got page %q, want %s in it", page, st.MAC)
	}
}

// An agent that does not answer holds nobody up.
func TestDeafAgent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.machine()
	m.Memory = 256
	r.boots(m, func(st vm.Status) string { return fmt.Sprintf("http://127.0.0.1:%d/", st.Forwards[1].Host) })
	// Somebody else has the agent's ear: QEMU lets the next client wait.
	busy, err := net.Dial("unix", filepath.Join(m.Dir, "qga"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	begin := time.Now()
	st := r.inspect(m)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("Inspect took %v with a deaf agent, want about half a second", took)
	}
	if st.Power != vm.PoweredOn || st.Tools != vm.ToolsNotRunning {
		t.Errorf("got %+v, want powered-on and tools that do not run", st)
	}

	another, err := qemu.Open(options(r.data))
	if err != nil {
		t.Fatal(err)
	}
	defer another.Close()
	until(t, 10*time.Second, "a sign of life at the forwarded port", func() bool {
		st, err := another.Inspect(t.Context(), m)
		return err == nil && st.Up
	})
	busy.Close()
	until(t, 10*time.Second, "the agent's answer", func() bool { return r.inspect(m).Tools == vm.ToolsRunning })
}
