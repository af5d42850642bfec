package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
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
	var list struct{ Templates []vm.Template }
	for len(list.Templates) == 0 && time.Now().Before(end) {
		h.StandStill(2500 * time.Millisecond)
		time.Sleep(200 * time.Millisecond)
		a, err := h.Do("GET", "/templates", "", nil)
		harness.Must(t, err)
		harness.Must(t, a.JSON(&list))
	}
	if len(list.Templates) != 1 || !list.Templates[0].Agent {
		t.Errorf("got templates %+v, want one whose guest has an agent", list.Templates)
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

// guestHasLease reports whether the guest of a template, which is no machine that clients see, has written to its console
// that it has an address. except are the machines that clients see.
func guestHasLease(h *harness.Harness, except ...string) bool {
	logs, _ := filepath.Glob(filepath.Join(h.Data, "vms", "*", "serial.log"))
	for _, log := range logs {
		id := filepath.Base(filepath.Dir(log))
		text, _ := os.ReadFile(log) // it goes with the guest
		if strings.Contains(string(text), "tinyvm: lease of") && !slices.Contains(except, id) {
			return true
		}
	}
	return false
}
