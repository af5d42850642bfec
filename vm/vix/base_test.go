//go:build vix && cgo && !windows

package vix_test

import (
	"os"
	"path/filepath"
	"testing"

	"osx-builder/vm"
)

// forget removes an image as the cache does.
func (b *bench) forget(gold string) {
	b.t.Helper()
	must(b.t, os.Chmod(filepath.Dir(gold), 0o755))
	must(b.t, os.RemoveAll(filepath.Dir(gold)))
}

// bases lists what is in the folder of the bases.
func (b *bench) bases() []string {
	b.t.Helper()
	names, err := filepath.Glob(filepath.Join(b.options.Dir, "*", "vmware"))
	must(b.t, err)
	return names
}

// The base of an image that was removed by hand is swept.
func TestSweepImages(t *testing.T) {
	b := newBench(t)
	d := b.open()
	kept := b.image("kept", goldVMX)
	for _, gold := range []string{b.gold, kept} {
		m := b.machine()
		must(t, d.Clone(t.Context(), m, gold))
		must(t, d.Destroy(t.Context(), m))
	}
	if n := len(b.bases()); n != 2 {
		t.Fatalf("got %d bases of two images, want 2", n)
	}
	b.forget(b.gold)
	must(t, d.Sweep(t.Context(), func(string) bool { return true }))
	if n := len(b.bases()); n != 1 {
		t.Errorf("got %d bases once one of two images is gone, want 1", n)
	}
}

// What a machine that is known no more holds of a base is given back.
func TestSweepMarks(t *testing.T) {
	b := newBench(t)
	d := b.open()
	known, unknown := b.running(d), b.running(d)
	mark := func(m vm.Machine) bool {
		marks, err := filepath.Glob(filepath.Join(b.options.Dir, "*", "vmware", "clones", m.ID))
		must(t, err)
		return len(marks) == 1
	}
	must(t, d.Sweep(t.Context(), func(id string) bool { return id == known.ID }))
	if mark(unknown) || !mark(known) {
		t.Errorf("marks: known %v, unknown %v, want only that of the known", mark(known), mark(unknown))
	}
	for _, m := range []vm.Machine{known, unknown} {
		must(t, d.Destroy(t.Context(), m))
	}
}

// A crash can leave a base half-made. The next start removes it, and the next
// clone makes it anew.
func TestHalfMadeBase(t *testing.T) {
	b := newBench(t)
	d := b.open()
	must(t, d.Destroy(t.Context(), b.running(d)))
	state := filepath.Join(b.bases()[0], "base.json")
	must(t, os.Remove(state))
	d = b.open()
	if left := b.bases(); len(left) != 0 {
		t.Errorf("left of a half-made base: %v", left)
	}
	m := b.running(d)
	must(t, d.Destroy(t.Context(), m))
}

// A base whose state cannot be read may have clones: it is not made anew.
func TestDamagedBase(t *testing.T) {
	b := newBench(t)
	d := b.open()
	m := b.running(d)
	must(t, os.WriteFile(filepath.Join(b.bases()[0], "base.json"), []byte("{"), 0o600))
	d = b.open()
	if err := d.Clone(t.Context(), b.machine(), b.gold); err == nil {
		t.Error("Clone from a base that cannot be read: got no error")
	}
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("its clone: got %+v, %v, want powered-on", st, err)
	}
	must(t, d.Destroy(t.Context(), m))
}
