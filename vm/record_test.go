package vm_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// A record that cannot be used stops neither the start nor the list. It has an
// error that says why, and DELETE removes its machine. A corrupt record is set
// aside; one of a newer daemon stays as it is.
func TestUnusableRecords(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(text string) string
		says  string
		aside bool
	}{
		"empty":           {func(string) string { return "" }, "corrupt", true},
		"cut off":         {func(s string) string { return s[:len(s)/2] }, "corrupt", true},
		"no object":       {func(string) string { return "[]" }, "corrupt", true},
		"another machine": {func(s string) string { return strings.ReplaceAll(s, `"id": "`, `"id": "x`) }, "corrupt", true},
		"no such phase":   {func(s string) string { return strings.ReplaceAll(s, `"ready"`, `"asleep"`) }, "asleep", true},
		"null message":    {func(s string) string { return strings.Replace(s, `"messages": [`, `"messages": [null,`, 1) }, "null", true},
		"newer version":   {func(s string) string { return strings.Replace(s, `"version": 2`, `"version": 3`, 1) }, "newer", false},
		"newer in form":   {func(string) string { return `{"version": 9, "id": 7, "phase": {}}` }, "newer", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t).open()
			good, bad := h.wait(h.create(h.request()).ID), h.wait(h.create(h.request()).ID)
			h.callback()
			h.callback()
			h.close()
			path := filepath.Join(h.dir, "vms", bad.ID+".json")
			b, err := os.ReadFile(path)
			must(t, err)
			spoiled := c.spoil(string(b))
			must(t, os.WriteFile(path, []byte(spoiled), 0o600))
			for range 2 { // the second start finds what the first one left
				h.open()
				if _, err := h.vms.Get(t.Context(), bad.ID); codeOf(err) != vm.CodeOpen {
					t.Errorf("Get: got %v, want %s", err, vm.CodeOpen)
				}
				list, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
				must(t, err)
				if len(list) != 2 || list[0].ID != bad.ID || list[0].Error == nil || list[1].ID != good.ID {
					t.Errorf("List: got %+v", list)
				}
				h.close()
			}
			if c.aside {
				path += ".corrupt"
			}
			if b, err = os.ReadFile(path); err != nil || string(b) != spoiled {
				t.Errorf("%s: got %q, %v, want it kept as it was", path, b, err)
			}
			h.open()
			if _, err := os.Stat(filepath.Join(h.dir, "vms", bad.ID)); err != nil {
				t.Errorf("the machine's folder: %v", err)
			}
			must(t, h.vms.Destroy(t.Context(), bad.ID))
			must(t, h.vms.Destroy(t.Context(), good.ID))
			if names := h.files(); len(names) != 0 {
				t.Errorf("left: %v", names)
			}
			if _, err := h.vms.Get(t.Context(), bad.ID); codeOf(err) != vm.CodeNotFound {
				t.Errorf("Get once gone: got %v, want %s", err, vm.CodeNotFound)
			}
		})
	}
}

// The message says what cannot be read and why.
func TestUnusableRecordSaysWhy(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.close()
	h.edit(v.ID, func(r map[string]any) { r["version"] = 3 })
	h.open()
	_, err := h.vms.Get(t.Context(), v.ID)
	if err == nil || !strings.Contains(err.Error(), "newer osx-builder") || !strings.Contains(err.Error(), "version is 3") {
		t.Errorf("got %v, want the newer version in it", err)
	}
	must(t, h.vms.Destroy(t.Context(), v.ID))
}

// A record of version 1 is read with its callback, and written in the current
// version.
func TestOlderRecordIsMigrated(t *testing.T) {
	h := newHarness(t)
	h.refuse.Store(1000)
	h.open()
	v := h.wait(h.create(h.request()).ID)
	h.close()
	h.edit(v.ID, func(r map[string]any) {
		r["version"] = 1
		r["outbox"] = r["messages"].([]any)[0]
		delete(r, "messages")
	})
	h.refuse.Store(0)
	h.open()
	if got := h.callback(); got.ID != v.ID || got.Phase != vm.Ready {
		t.Errorf("callback: got %+v", got)
	}
	h.close()
	b, err := os.ReadFile(filepath.Join(h.dir, "vms", v.ID+".json"))
	if err != nil || !strings.Contains(string(b), `"version": 2`) || !strings.Contains(string(b), `"messages"`) {
		t.Errorf("got %v and\n%s\nwant version 2 with its messages", err, b)
	}
}

// sweeping is a driver that passes on the calls of Sweep.
type sweeping struct {
	*vmtest.Driver
	swept chan func(string) bool
}

func (s sweeping) Sweep(_ context.Context, known func(string) bool) error {
	s.swept <- known
	return nil
}

// At start the driver sweeps what belongs to no record.
func TestHostIsSwept(t *testing.T) {
	h := newHarness(t)
	d := sweeping{h.driver, make(chan func(string) bool, 2)}
	h.options = func(o *vm.Options) { o.Driver = d }
	h.open()
	<-d.swept
	v := h.wait(h.create(h.request()).ID)
	h.close()
	h.open()
	if known := <-d.swept; !known(v.ID) || known("282ee68a-2e4d-4bd7-9c0e-7f37e12fc489") {
		t.Errorf("known: got %v for the machine, %v for another, want true, false", known(v.ID), !known(v.ID))
	}
}

// A creation whose record cannot be written is refused, and leaves nothing for the
// next start.
func TestRefusedCreationLeavesNothing(t *testing.T) {
	h := newHarness(t).open()
	dir := filepath.Join(h.dir, "vms")
	must(t, os.Rename(dir, dir+".away"))
	if _, err := h.vms.Create(t.Context(), h.request(), "key"); codeOf(err) != vm.CodeInternal {
		t.Errorf("got %v, want %s", err, vm.CodeInternal)
	}
	must(t, os.Rename(dir+".away", dir))
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	v, err := h.vms.Create(t.Context(), h.request(), "key")
	must(t, err)
	if files := h.files(); !slices.Contains(files, v.ID+".json") {
		t.Errorf("files: got %v, want a record", files)
	}
	h.wait(v.ID)
}
