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

// pageSize is the unit in which tmpfs gives space.
const pageSize = 4 << 10

// smallDisk puts the house on a file system of some MiB of its own.
func (h *house) smallDisk(mib int) {
	h.t.Helper()
	h.dir = h.t.TempDir()
	must(h.t, unix.Mount("tmpfs", h.dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)))
	h.t.Cleanup(func() {
		h.close()
		must(h.t, unix.Unmount(h.dir, 0))
	})
}

// fill leaves the disk with so many pages, and returns what makes room again.
func (h *house) fill(pages int) (room func()) {
	h.t.Helper()
	var st unix.Statfs_t
	must(h.t, unix.Statfs(h.dir, &st))
	path := filepath.Join(h.dir, "filler")
	must(h.t, os.WriteFile(path, make([]byte, (int(st.Bfree)-pages)*pageSize), 0o600))
	return func() { must(h.t, os.Remove(path)) }
}

// However much room is left when the disk runs full, so whichever write it is
// that fails: a creation is refused, fails or waits for room, each with its
// code; a destruction works, since it makes room; and with room again, the
// next start puts all right.
func TestFullDisk(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	g := newGallery(t, 1)
	outcomes := make(map[string]int)
	for pages := range 20 {
		t.Run(fmt.Sprint(pages, " pages free"), func(t *testing.T) {
			h := newHouse(t)
			h.smallDisk(4)
			h.limits.FreeBytes = -1
			h.open()
			old := h.delivered(h.create(h.request()).ID)
			room := h.fill(pages)
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
			room()
			h.open()
			if v.ID != "" {
				if got := h.wait(v.ID); got.Phase != vm.Ready && got.Phase != vm.Failed {
					t.Errorf("with room again: got %s, want ready or failed", got.Phase)
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
			h.callback() // else Destroy leaves a tombstone that sends it
			must(t, h.vms.Destroy(t.Context(), again.ID))
			h.close()
			if names := h.files(); len(names) > 0 {
				t.Errorf("left: %v", names)
			}
		})
	}
	t.Logf("outcomes: %v", outcomes)
	if outcomes["refused"] == 0 || outcomes[string(vm.Failed)] == 0 || outcomes[string(vm.Ready)] == 0 {
		t.Errorf("outcomes are %v, want some refused, some failed and some ready: the disk did not fail where it was to", outcomes)
	}
}

// A file system that fails every write, as one does that the kernel made
// read-only after an I/O error, met at each step: what is answered has a code,
// and once it works again the next start puts all right.
func TestDiskFailsAtEachStep(t *testing.T) {
	if !e2e.IsolateTest(t) {
		return
	}
	for _, step := range []vmtest.Step{vmtest.Clone, vmtest.Start, vmtest.Inspect, vmtest.Destroy} {
		t.Run(string(step), func(t *testing.T) {
			h := newHouse(t)
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
						return nil // a reader before there is a machine
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
			h.vms.Close() // the image cache cannot tidy up on a disk that fails
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
