package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// A host that stands still for seconds, with all its programs, says nothing about a guest: a template is made only after
// its guest has started its agent, and machines that start from it are given time for their sign of life.
func TestTemplateOnHostThatStandsStill(t *testing.T) {
	t.Parallel()
	if !e2e.IsolateTest(t) {
		return
	}
	h := harness.New(t, "-network", "bridge")
	body := h.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"start": "memory"}))
	first := h.WaitReady(h.Create(body).ID)
	end := time.Now().Add(harness.Timeout)
	for !guestHasLease(h, first.ID) && time.Now().Before(end) {
		harness.Hurry(h.Data)
		time.Sleep(10 * time.Millisecond)
	}
	var list []vm.Template
	for len(list) == 0 && time.Now().Before(end) {
		h.StandStill(2500 * time.Millisecond)
		time.Sleep(200 * time.Millisecond)
		list = h.Templates()
	}
	if len(list) != 1 || !list[0].Agent {
		t.Errorf("got templates %+v, want one whose guest has an agent", list)
	}
	for range 2 {
		v := h.Create(body)
		for v.Phase != vm.Ready && v.Phase != vm.Failed && time.Now().Before(end) {
			h.StandStill(2500 * time.Millisecond)
			time.Sleep(40 * time.Millisecond) // a guest that continues answers within 15 to 250 ms
			v = h.Get(v.ID)
		}
		if v.Phase != vm.Ready || v.Start != vm.StartMemory {
			t.Errorf("got %+v, want a start from memory", v)
		}
	}
}

// guestHasLease reports whether the guest of a template has written to its console that it has an address. It has a
// folder among those of machines; except is the only machine.
func guestHasLease(h *harness.Harness, except string) bool {
	logs, _ := filepath.Glob(filepath.Join(h.Data, "vms", "*", "serial.log"))
	for _, log := range logs {
		id := filepath.Base(filepath.Dir(log))
		text, _ := os.ReadFile(log) // it goes with the guest
		if strings.Contains(string(text), "tinyvm: lease of") && id != except {
			return true
		}
	}
	return false
}
