package vm_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// destroyUnready creates a machine and destroys it before it is ready: its
// callback is due, and refused.
func (h *harness) destroyUnready() (id string) {
	h.t.Helper()
	v := h.create(h.request())
	must(h.t, h.vms.Destroy(h.t.Context(), v.ID))
	return v.ID
}

// wantFiles waits until the machines' folder has these files.
func (h *harness) wantFiles(when string, want ...string) {
	h.t.Helper()
	slices.Sort(want)
	var got []string
	for deadline := time.Now().Add(hangTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = h.files(); slices.Equal(got, want) {
			return
		}
	}
	h.t.Errorf("%s: the files are %v, want %v", when, got, want)
}

func tombstoneFiles(ids ...string) (names []string) {
	for _, id := range ids {
		names = append(names, id+".tombstone.json")
	}
	return names
}

// readTombstone returns the content of a tombstone.
func (h *harness) readTombstone(id string) map[string]any {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "vms", id+".tombstone.json"))
	must(h.t, err)
	var r map[string]any
	must(h.t, json.Unmarshal(b, &r))
	return r
}

// writeFile writes a file with a record into the machines' folder.
func (h *harness) writeFile(name string, r map[string]any) {
	h.t.Helper()
	b, err := json.Marshal(r)
	must(h.t, err)
	must(h.t, os.WriteFile(filepath.Join(h.dir, "vms", name), b, 0o600))
}

// Of too many tombstones the oldest are dropped, while the daemon runs and at its
// start. Those that wait for their next attempt have no goroutine. The others are
// sent once their receiver accepts them.
func TestTombstonesAreBounded(t *testing.T) {
	h := newHarness(t)
	h.hold(vmtest.Clone)
	h.refuse.Store(1 << 30)
	var dropped atomic.Int32
	bound := 20
	h.options = func(o *vm.Options) {
		o.Tombstones = bound
		o.Hooks.CallbackDropped = func() { dropped.Add(1) }
	}
	h.open()
	before := runtime.NumGoroutine()
	var ids []string
	for range 2 * bound {
		ids = append(ids, h.destroyUnready())
	}
	h.wantFiles("at the bound", tombstoneFiles(ids[bound:]...)...)
	if n := dropped.Load(); n != int32(bound) {
		t.Errorf("dropped: got %d callbacks, want %d", n, bound)
	}
	h.close()

	for _, id := range ids[bound:] { // nothing is due soon
		r := h.readTombstone(id)
		r["messages"].([]any)[0].(map[string]any)["next_at"] = time.Now().Add(time.Hour).UTC()
		h.writeFile(id+".tombstone.json", r)
	}
	bound = 15
	h.open()
	h.wantFiles("with a lower bound", tombstoneFiles(ids[25:]...)...)
	if n := dropped.Load(); n != 25 {
		t.Errorf("dropped: got %d callbacks, want 25", n)
	}
	if now := runtime.NumGoroutine(); now > before+10 {
		t.Errorf("got %d goroutines with tombstones that wait, %d without", now, before)
	}
	h.close()

	for _, id := range ids[25:] {
		r := h.readTombstone(id)
		r["messages"].([]any)[0].(map[string]any)["next_at"] = time.Now().UTC()
		h.writeFile(id+".tombstone.json", r)
	}
	h.refuse.Store(0)
	h.open()
	left := map[string]bool{}
	for _, id := range ids[25:] {
		left[id] = true
	}
	for range 15 {
		v := h.callback()
		if !left[v.ID] || v.Error == nil || v.Error.Code != vm.CodeCancelled {
			t.Errorf("callback: got %+v, want one for each machine left", v)
		}
		delete(left, v.ID)
	}
	h.wantFiles("delivered")
}

// A tombstone whose attempt runs is dropped too.
func TestTombstoneIsDroppedDuringAttempt(t *testing.T) {
	h := newHarness(t)
	h.hold(vmtest.Clone)
	arrived := make(chan struct{}, 10)
	h.options = func(o *vm.Options) { o.Tombstones = 1 }
	h.answer = func(r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}
	h.open()
	h.destroyUnready()
	<-arrived
	second := h.destroyUnready()
	h.wantFiles("after the second", tombstoneFiles(second)...)
}

// Lists and counts do not open the tombstones: not even one that cannot be read
// is an error.
func TestReadersDoNotOpenTombstones(t *testing.T) {
	h := newHarness(t)
	h.hold(vmtest.Clone)
	h.refuse.Store(1 << 30)
	h.open()
	id := h.destroyUnready()
	h.wantFiles("destroyed", tombstoneFiles(id)...)
	path := filepath.Join(h.dir, "vms", id+".tombstone.json")
	for deadline := time.Now().Add(hangTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(path)
		must(t, err)
		if strings.Contains(string(text), "503 Service Unavailable") { // the first attempt is written down; the next one is later
			break
		}
	}
	must(t, os.Remove(path))
	must(t, os.Symlink("/proc/self/mem", path)) // cannot be read
	list, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
	if err != nil || len(list) != 0 {
		t.Errorf("List: got %+v, %v, want no machine", list, err)
	}
	counts, err := h.vms.StateCounts(t.Context())
	if err != nil || len(counts) != 0 {
		t.Errorf("StateCounts: got %v, %v, want none", counts, err)
	}
	if _, err := h.vms.Get(t.Context(), id); codeOf(err) != vm.CodeNotFound {
		t.Errorf("Get: got %v, want %s", err, vm.CodeNotFound)
	}
	if err := h.vms.Destroy(t.Context(), id); codeOf(err) != vm.CodeNotFound {
		t.Errorf("Destroy: got %v, want %s", err, vm.CodeNotFound)
	}
}

// Whatever the daemon's end leaves of a tombstone that was being made, the next
// start sends its callback and has neither the machine nor its key. So it is for
// the tombstones of an earlier version.
func TestTombstoneAfterCrash(t *testing.T) {
	for name, leave := range map[string]func(h *harness, id string, r map[string]any){
		"the tombstone is not in place": func(h *harness, id string, r map[string]any) {
			delete(r, "gone")
			h.writeFile(id+".json", r)
			h.writeFile("."+id+".tombstone.json42", r)
		},
		"the record is not removed": func(h *harness, id string, r map[string]any) {
			h.writeFile(id+".tombstone.json", r)
			delete(r, "gone")
			h.writeFile(id+".json", r)
		},
		"the record is removed": func(h *harness, id string, r map[string]any) {
			h.writeFile(id+".tombstone.json", r)
		},
		"of an earlier version": func(h *harness, id string, r map[string]any) {
			h.writeFile(id+".json", r)
		},
		"of an earlier version, moved but not removed": func(h *harness, id string, r map[string]any) {
			h.writeFile(id+".json", r)
			h.writeFile(id+".tombstone.json", r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.hold(vmtest.Clone)
			h.refuse.Store(1 << 30)
			h.open()
			v, err := h.vms.Create(t.Context(), h.request(), "key")
			must(t, err)
			must(t, h.vms.Destroy(t.Context(), v.ID))
			h.close()
			r := h.readTombstone(v.ID)
			must(t, os.Remove(filepath.Join(h.dir, "vms", v.ID+".tombstone.json")))
			leave(h, v.ID, r)

			h.open()
			h.wantFiles("after the start", tombstoneFiles(v.ID)...)
			again, err := h.vms.Create(t.Context(), h.request(), "key")
			if err != nil || again.ID == v.ID {
				t.Errorf("Create with the key again: got %s, %v, want another machine than %s", again.ID, err, v.ID)
			}
			list, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
			if err != nil || len(list) != 1 || list[0].ID != again.ID {
				t.Errorf("List: got %+v, %v, want the new machine", list, err)
			}
			must(t, h.vms.Destroy(t.Context(), again.ID))
			h.close()
			h.refuse.Store(0)
			h.open()
			got := map[string]bool{h.callback().ID: true, h.callback().ID: true}
			if !got[v.ID] || !got[again.ID] {
				t.Errorf("callbacks: got %v, want one of each machine", got)
			}
			h.wantFiles("delivered")
		})
	}
}

// A tombstone that is corrupt is set aside, and one of a newer version is left as
// it is. Neither keeps the daemon from starting.
func TestUnusableTombstones(t *testing.T) {
	h := newHarness(t)
	dir := filepath.Join(h.dir, "vms")
	must(t, os.MkdirAll(dir, 0o700))
	const corrupt, newer = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	must(t, os.WriteFile(filepath.Join(dir, corrupt+".tombstone.json"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, newer+".tombstone.json"), []byte(`{"version": 99}`), 0o600))
	for range 2 {
		h.open()
		h.wantFiles("after the start", corrupt+".tombstone.json.corrupt", newer+".tombstone.json")
		if list, err := h.vms.List(t.Context(), vm.Filter{}, everyone); err != nil || len(list) != 0 {
			t.Errorf("List: got %+v, %v, want no machine", list, err)
		}
		h.close()
	}
}

// What the daemon did not make stays in the machines' folder.
func TestForeignFilesStay(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.delivered(v.ID)
	h.close()
	dir := filepath.Join(h.dir, "vms")
	const gone = "11111111-1111-4111-8111-111111111111"
	foreign := []string{
		v.ID + ".json.bak", v.ID + ".json~", gone + ".json.bak", "." + v.ID + ".json.swp", "README", ".hidden", "notes.json", gone,
	}
	for _, name := range foreign {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "backup"), 0o700))
	h.open()
	h.wantFiles("after the start", append(foreign, "backup", v.ID, v.ID+".json")...)
	must(t, h.vms.Destroy(t.Context(), v.ID))
	for _, name := range h.files() {
		if strings.HasPrefix(name, v.ID) && !strings.HasSuffix(name, ".bak") && !strings.HasSuffix(name, "~") {
			t.Errorf("left: %s", name)
		}
	}
}
