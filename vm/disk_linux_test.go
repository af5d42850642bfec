package vm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/e2e"
)

// pageSize is the unit in which tmpfs allocates space.
const pageSize = 4 << 10

// smallDisk gives the harness a file system of its own with some MiB.
func (h *harness) smallDisk(mib int) {
	h.t.Helper()
	h.dir = h.t.TempDir()
	must(h.t, unix.Mount("tmpfs", h.dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)))
	h.t.Cleanup(func() {
		h.close()
		must(h.t, unix.Unmount(h.dir, 0))
	})
}

// fill leaves so many free pages on the disk, and returns a function that frees
// the rest.
func (h *harness) fill(pages int) (free func()) {
	h.t.Helper()
	var st unix.Statfs_t
	must(h.t, unix.Statfs(h.dir, &st))
	path := filepath.Join(h.dir, "filler")
	must(h.t, os.WriteFile(path, make([]byte, (int(st.Bfree)-pages)*pageSize), 0o600))
	return func() { must(h.t, os.Remove(path)) }
}

// Whichever write fails when the disk is full, a creation is refused, fails with
// its code or waits for space. A destruction works, because it frees space. Once
// there is space again, the next start repairs everything.
func TestFullDisk(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	g := newImageServer(t, 1)
	outcomes := make(map[string]int)
	for pages := range 20 {
		t.Run(fmt.Sprint(pages, " pages free"), func(t *testing.T) {
			h := newHarness(t)
			h.smallDisk(4)
			h.limits.FreeBytes = -1
			h.open()
			old := h.delivered(h.create(h.request()).ID)
			free := h.fill(pages)
			q := h.request()
			q.Image = g.image(0)
			v, err := h.vms.Create(t.Context(), q, "key")
			switch {
			case err != nil && codeOf(err) == vm.CodeDiskFull:
				outcomes["refused"]++
			case err != nil:
				t.Errorf("Create: got %v, want %s", err, vm.CodeDiskFull)
			default:
				got, err := h.vms.Wait(t.Context(), v.ID, 100*time.Millisecond)
				must(t, err)
				outcomes[string(got.Phase)]++
				if got.Phase == vm.Failed && got.Error.Code != vm.CodeDiskFull {
					t.Errorf("failed with %+v, want %s", got.Error, vm.CodeDiskFull)
				}
			}
			if err := h.vms.Destroy(t.Context(), old.ID); err != nil {
				t.Errorf("Destroy: %v", err)
			}
			h.close()
			free()
			h.open()
			if v.ID != "" {
				if got := h.wait(v.ID); got.Phase != vm.Ready && got.Phase != vm.Failed {
					t.Errorf("with space again: got %s, want ready or failed", got.Phase)
				}
				if got := h.callback(); got.ID != v.ID {
					t.Errorf("callback of %s, want %s", got.ID, v.ID)
				}
				must(t, h.vms.Destroy(t.Context(), v.ID))
			}
			again, err := h.vms.Create(t.Context(), q, "key")
			must(t, err)
			if got := h.wait(again.ID); got.Phase != vm.Ready {
				t.Errorf("a new machine: got %s (%+v), want ready", got.Phase, got.Error)
			}
			h.callback() // otherwise Destroy leaves a tombstone that sends it
			must(t, h.vms.Destroy(t.Context(), again.ID))
			h.close()
			if names := h.files(); len(names) > 0 {
				t.Errorf("left: %v", names)
			}
		})
	}
	t.Logf("outcomes: %v", outcomes)
	if outcomes["refused"] == 0 || outcomes[string(vm.Failed)] == 0 || outcomes[string(vm.Ready)] == 0 {
		t.Errorf("outcomes are %v, want some refused, some failed and some ready: the disk did not fail at every kind of write", outcomes)
	}
}

// At each step the file system begins to fail every write, as it does once the
// kernel makes it read-only after an I/O error. Each error has a code, and once
// the file system works again the next start repairs everything.
func TestDiskFailsAtEachStep(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	for _, step := range []vmtest.Step{vmtest.Clone, vmtest.Start, vmtest.Inspect, vmtest.Destroy} {
		t.Run(string(step), func(t *testing.T) {
			h := newHarness(t)
			h.smallDisk(4)
			h.limits.FreeBytes = -1
			remount := func(flags uintptr) error {
				return unix.Mount("", h.dir, "", unix.MS_REMOUNT|flags, "")
			}
			reached := make(chan struct{})
			broken := false
			h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
				if s == step && !broken {
					if _, err := os.Stat(m.Dir); s == vmtest.Inspect && err != nil {
						return nil // a reader, before the machine exists
					}
					broken = true
					must(t, remount(unix.MS_RDONLY))
					close(reached)
				}
				return nil
			}
			v := h.open().create(h.request())
			if step == vmtest.Destroy {
				h.wait(v.ID)
				h.callback()
			}
			if step == vmtest.Destroy {
				if err := h.vms.Destroy(t.Context(), v.ID); codeOf(err) != vm.CodeHypervisor && codeOf(err) != vm.CodeInternal {
					t.Errorf("Destroy: got %v, want an error with a code", err)
				}
			}
			<-reached
			if _, err := h.vms.Create(t.Context(), h.request(), ""); codeOf(err) != vm.CodeInternal {
				t.Errorf("Create: got %v, want %s", err, vm.CodeInternal)
			}
			got, err := h.vms.Get(t.Context(), v.ID)
			must(t, err)
			if step != vmtest.Destroy && got.Phase == vm.Ready {
				t.Errorf("got %s, which is on no disk", got.Phase)
			}
			h.vms.Close() // the image cache cannot clean up on a disk that fails
			must(t, remount(0))
			must(t, h.images.Close())
			h.callbacks.Close()
			h.vms = nil
			h.open()
			if step == vmtest.Destroy {
				h.gone(v.ID)
			} else {
				if got := h.wait(v.ID); got.Phase != vm.Ready {
					t.Errorf("after the restart: got %s (%+v), want ready", got.Phase, got.Error)
				}
				h.callback()
				must(t, h.vms.Destroy(t.Context(), v.ID))
			}
			h.close()
			if names := h.files(); len(names) > 0 || h.received() != 1 {
				t.Errorf("left %v, %d callbacks, want nothing and 1", names, h.received())
			}
		})
	}
}
