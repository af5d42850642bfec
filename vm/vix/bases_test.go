//go:build vix && cgo && !windows

package vix_test

import (
	"os"
	"path/filepath"
	"testing"

	"osx-builder/vm"
)

// removeImage removes an image like the image cache.
func (h *harness) removeImage(gold string) {
	h.t.Helper()
	must(h.t, os.Chmod(filepath.Dir(gold), 0o755))
	must(h.t, os.RemoveAll(filepath.Dir(gold)))
}

// bases lists the base machines.
func (h *harness) bases() []string {
	h.t.Helper()
	names, err := filepath.Glob(filepath.Join(h.options.Dir, "*", "vmware"))
	must(h.t, err)
	return names
}

// Sweep removes the base of an image that was removed by hand.
func TestSweepUnusedBases(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	kept := h.image("kept", goldVMX)
	for _, gold := range []string{h.gold, kept} {
		m := h.machine()
		must(t, d.Clone(t.Context(), m, gold))
		must(t, d.Destroy(t.Context(), m))
	}
	if n := len(h.bases()); n != 2 {
		t.Fatalf("got %d bases of two images, want 2", n)
	}
	h.removeImage(h.gold)
	must(t, d.Sweep(t.Context(), func(string) bool { return true }))
	if n := len(h.bases()); n != 1 {
		t.Errorf("got %d bases once one of two images is gone, want 1", n)
	}
}

// Sweep removes the markers of unknown machines.
func TestSweepMarkers(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	known, unknown := h.running(d), h.running(d)
	hasMarker := func(m vm.Machine) bool {
		markers, err := filepath.Glob(filepath.Join(h.options.Dir, "*", "vmware", "clones", m.ID))
		must(t, err)
		return len(markers) == 1
	}
	must(t, d.Sweep(t.Context(), func(id string) bool { return id == known.ID }))
	if hasMarker(unknown) || !hasMarker(known) {
		t.Errorf("markers: known %v, unknown %v, want only that of the known machine", hasMarker(known), hasMarker(unknown))
	}
	for _, m := range []vm.Machine{known, unknown} {
		must(t, d.Destroy(t.Context(), m))
	}
}

// A crash can leave an incomplete base. The next start removes it, and the next clone creates it again.
func TestIncompleteBase(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	must(t, d.Destroy(t.Context(), h.running(d)))
	state := filepath.Join(h.bases()[0], "base.json")
	must(t, os.Remove(state))
	d = h.open()
	if left := h.bases(); len(left) != 0 {
		t.Errorf("left of an incomplete base: %v", left)
	}
	m := h.running(d)
	must(t, d.Destroy(t.Context(), m))
}

// A base whose state cannot be read may have clones, so it is not created again.
func TestDamagedBase(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.running(d)
	must(t, os.WriteFile(filepath.Join(h.bases()[0], "base.json"), []byte("{"), 0o600))
	d = h.open()
	if err := d.Clone(t.Context(), h.machine(), h.gold); err == nil {
		t.Error("Clone of an unreadable base: got no error")
	}
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("its clone: got %+v, %v, want powered-on", st, err)
	}
	must(t, d.Destroy(t.Context(), m))
}
