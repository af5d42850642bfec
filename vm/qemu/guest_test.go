package qemu_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// tinyvm unpacks the real guest that `make image` builds and returns its .vmx.
func (r *testDriver) tinyvm() string {
	r.t.Helper()
	return r.unpacked("tinyvm.tar.gz")
}

// unpacked unpacks a variant of the real guest and returns its .vmx.
func (r *testDriver) unpacked(variant string) string {
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

// bootsFrom starts a machine of the real guest at gold and returns its state
// once it is up, with the page at url(state).
func (r *testDriver) bootsFrom(m vm.Machine, gold string, url func(vm.Status) string) (st vm.Status, page string) {
	r.t.Helper()
	r.clone(m, gold)
	r.start(m)
	defer func() {
		if r.t.Failed() {
			r.t.Logf("last seen: %+v; serial log:\n%s", st, serial(m))
		}
	}()
	until(r.t, harness.Timeout, "the guest's agent and address", func() bool {
		st = r.inspect(m)
		return st.Up && st.Tools == vm.ToolsRunning && st.IP != ""
	})
	until(r.t, harness.Timeout, "the guest's page", func() (ok bool) {
		page, ok = served(url(st))
		return ok
	})
	return st, page
}

// served is a page of a guest that may not be up yet.
func served(url string) (page string, ok bool) {
	dialer := net.Dialer{Timeout: time.Second} // a transport goes on dialling when its client has given up
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
	response, err := client.Get(url)
	if err != nil {
		return "", false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err == nil && response.StatusCode == http.StatusOK
}

// A real guest on the user network, from its first boot to its third.
func TestGuestOnUserNetwork(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	m.Memory, m.Forward = 256, []int{80, 22, 8080}
	gold := r.tinyvm()
	st, page := r.bootsFrom(m, gold, pageAt)
	loopback := serveOnLoopback(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"its page is at the forwarded port and names the MAC address that Inspect does", func(t *testing.T) {
			if st.IP != "127.0.0.1" || st.CPUs != 2 || st.Memory != 256 || !strings.Contains(page, st.MAC) || !strings.Contains(page, "\nslot: 192\n") {
				t.Errorf("got %+v and page %q, want 127.0.0.1, PCI slot 192 as on VMware, 2 processors, 256 MiB, and the MAC address on the page", st, page)
			}
		}},
		{"it has the forwarded ports, each once, and reaches what the host does", func(t *testing.T) {
			if !slices.Equal(guestPorts(st), []int{22, 80, 8080}) {
				t.Errorf("got forwards %v, want of 22, 80 and 8080, each once", st.Forwards)
			}
			if !slices.Contains(st.Addresses, "10.0.2.15") {
				t.Errorf("got addresses %v, want 10.0.2.15 among them", st.Addresses)
			}
			guestAwait(t, m, loopback)
		}},
		{"an agent that does not answer holds nobody up", func(t *testing.T) { deafAgent(t, r.with(t), m) }},
		{"it shuts down in order", func(t *testing.T) { st, page = shutsDown(t, r.with(t), m, gold, st, page) }},
		{"it is started while its QEMU has not ended yet", func(t *testing.T) { startsBeforeQEMUEnded(t, r.with(t), m, gold, st, page) }},
	} {
		t.Run(test.name, test.run)
	}
}

// pageAt returns the address of the real guest's page on the user network.
func pageAt(st vm.Status) string { return fmt.Sprintf("http://127.0.0.1:%d/", hostPort(st, 80)) }

func deafAgent(t *testing.T, r *testDriver, m vm.Machine) {
	// Somebody else has the agent's ear: QEMU lets the next client wait.
	busy, err := net.Dial("unix", filepath.Join(m.Dir, "qga"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	r.ReleaseAgent(m.Dir)
	if st := r.inspect(m); st.Power != vm.PoweredOn || st.Tools != vm.ToolsNotRunning {
		t.Errorf("got %+v, want powered-on and tools that do not run", st)
	}
	another, err := openDriver(options(r.data))
	if err != nil {
		t.Fatal(err)
	}
	defer another.Close()
	until(t, harness.Timeout, "a sign of life at the forwarded port", func() bool {
		st, err := another.Inspect(t.Context(), m)
		return err == nil && st.Up
	})
	busy.Close()
	until(t, harness.Timeout, "the agent's answer", func() bool { return r.inspect(m).Tools == vm.ToolsRunning })
}

// addLines adds lines to a .vmx.
func addLines(t *testing.T, vmx string, lines ...string) {
	t.Helper()
	text, err := os.ReadFile(vmx)
	harness.Must(t, err)
	harness.Must(t, os.WriteFile(vmx, []byte(string(text)+strings.Join(lines, "\n")+"\n"), 0o600))
}
