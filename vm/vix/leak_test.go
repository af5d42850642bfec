//go:build vix && cgo && !windows

package vix_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

// After many machines, with constant garbage collections, no handle is leaked or was used or released twice, and the
// image's base has one snapshot.
func TestNoLeaks(t *testing.T) {
	const rounds = 200
	h := newHarness(t)
	h.set("unlock.ms", 0)
	h.set("tools.ms", 5)
	h.set("ip.ms", 5)
	d := h.open()
	before, image := h.stats(), tree(t, filepath.Dir(h.gold))
	stop := collectGarbage(t)
	var wg sync.WaitGroup
	machines := make(chan vm.Machine)
	for range 4 {
		wg.Go(func() {
			for m := range machines {
				h.lifeCycle(t, d, m)
			}
		})
	}
	for range rounds {
		machines <- h.machine()
	}
	close(machines)
	wg.Wait()
	stop()

	after := h.stats()
	waitUntil(t, "all waits for tools ended", func() bool {
		after = h.stats()
		return after["job"] == before["job"] && after["vm"] == before["vm"]
	})
	t.Logf("%d rounds, %d jobs; live handles %v", rounds, after["jobs"]-before["jobs"], after)
	for _, name := range []string{"host", "vm", "job", "snapshot", "proplist", "dead_release", "dead_call", "endless", "bad_delete"} {
		if after[name] != before[name] {
			t.Errorf("%s: %d before, %d after", name, before[name], after[name])
		}
	}
	snapshots := read(t, filepath.Join(h.options.Dir, "*", "vmware", "machine", "*.vmsd"))
	if !strings.Contains(snapshots, `snapshot.numSnapshots = "1"`) {
		t.Errorf("got snapshots\n%s\nwant one", snapshots)
	}
	if diff := cmp.Diff(image, tree(t, filepath.Dir(h.gold))); diff != "" {
		t.Errorf("the image changed (-before +after):\n%s", diff)
	}
}

// lifeCycle creates, inspects and destroys a machine.
func (h *harness) lifeCycle(t *testing.T, d vm.Driver, m vm.Machine) {
	if err := d.Clone(t.Context(), m, h.gold); err != nil {
		t.Errorf("Clone: %v", err)
		return
	}
	if err := d.Start(t.Context(), m); err != nil {
		t.Errorf("Start: %v", err)
	}
	for range 3 {
		if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
			t.Errorf("Inspect: got %+v, %v, want powered-on", st, err)
		}
	}
	if err := d.Destroy(t.Context(), m); err != nil {
		t.Errorf("Destroy: %v", err)
	}
}

func collectGarbage(t *testing.T) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			runtime.GC()
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// govix leaks, so the driver calls VIX itself to clone and to open: each clone of govix adds a snapshot to the machine
// that is cloned, and each OpenVM leaks a job.
func TestGovixLeaks(t *testing.T) {
	const clones = 5
	h := newHarness(t)
	h.open()
	gold := h.image("leaks", "guestOS = \"other\"\n")
	must(t, os.Chmod(filepath.Dir(gold), 0o755)) // which govix writes to
	must(t, os.Chmod(gold, 0o644))
	host, err := govix.Connect(govix.ConnectConfig{Provider: govix.VMWARE_WORKSTATION})
	must(t, err)
	defer host.Disconnect()
	before := h.stats()["job"]
	for range clones {
		v, err := host.OpenVM(gold, "")
		must(t, err)
		_, err = v.Clone(govix.CLONETYPE_LINKED, filepath.Join(h.dir, h.machine().ID, "clone.vmx"))
		must(t, err)
	}
	list := read(t, strings.TrimSuffix(gold, "vmx")+"vmsd")
	if !strings.Contains(list, `snapshot.numSnapshots = "5"`) {
		t.Errorf("got\n%s\nafter %d clones by govix, want as many snapshots", list, clones)
	}
	if n := h.stats()["job"] - before; n != clones {
		t.Errorf("got %d jobs left after %d times OpenVM, want as many", n, clones)
	}
}
