//go:build vix && cgo && !windows

package vix_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
)

// lock locks a machine's .vmx like VMware's processes, with a claim of 512 bytes.
func lock(t *testing.T, m vm.Machine, content string) (path string) {
	t.Helper()
	path = filepath.Join(m.Dir, m.ID+".vmx.lck")
	must(t, os.MkdirAll(path, 0o755))
	must(t, os.WriteFile(filepath.Join(path, "M12345.lck"), []byte(content+strings.Repeat("\x00", 512-len(content))), 0o644))
	return path
}

// exitedProcess returns the ID of a process that has exited.
func exitedProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	must(t, cmd.Run())
	return cmd.Process.Pid
}

// A stale lock, which a crash can leave, is removed.
func TestStaleLock(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	must(t, d.Destroy(t.Context(), h.running(d))) // from its lock the driver learns the host's ID
	m := h.machine()
	stale := fmt.Sprintf("uuid=double %d-123(vmware-vmx) 7 X [ lc=1", exitedProcess(t))
	must(t, d.Clone(t.Context(), m, h.gold))
	lock(t, m, stale)
	must(t, d.Start(t.Context(), m))
	must(t, d.Destroy(t.Context(), m))

	must(t, d.Clone(t.Context(), m, h.gold))
	lock(t, m, stale)
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)

	bases, err := filepath.Glob(filepath.Join(h.options.Dir, "*", "vmware", "machine"))
	must(t, err)
	lock(t, vm.Machine{Dir: bases[0], ID: "gold"}, stale)
	must(t, d.Clone(t.Context(), m, h.gold))
	must(t, d.Destroy(t.Context(), m))
}

// A lock of a running or unknown process is respected.
func TestHeldLock(t *testing.T) {
	for name, content := range map[string]string{
		"by a running process": fmt.Sprintf("uuid=double %d(vmware-vmx) 7 X", os.Getpid()),
		"in an unknown format": "something else",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.options.Deadlines.Unlock = 200 * time.Millisecond
			d := h.open()
			m := h.machine()
			must(t, d.Clone(t.Context(), m, h.gold))
			path := lock(t, m, content)
			for step, err := range map[string]error{"Start": d.Start(t.Context(), m), "Destroy": d.Destroy(t.Context(), m)} {
				if e := new(vm.Error); !errors.As(err, &e) || e.Code != vm.CodeOpen {
					t.Errorf("%s: got %v, want %s", step, err, vm.CodeOpen)
				}
			}
			if _, err := os.Stat(filepath.Join(path, "M12345.lck")); err != nil {
				t.Errorf("the lock: %v", err)
			}
			must(t, os.RemoveAll(path))
			must(t, d.Destroy(t.Context(), m))
		})
	}
}

// A window that shows the machine locks its .vmx. VMware may close it to delete the machine, but not a process that
// locks a disk.
func TestWindowLock(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines.Unlock = 200 * time.Millisecond
	h.set("window", "")
	d := h.open()
	m := h.machine()
	shown := fmt.Sprintf("uuid=double %d(vmware) 7 X", os.Getpid())
	must(t, d.Clone(t.Context(), m, h.gold))
	lock(t, m, shown)
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)

	must(t, d.Clone(t.Context(), m, h.gold))
	path := lock(t, m, shown)
	must(t, os.Rename(path, filepath.Join(m.Dir, "disk.vmdk.lck")))
	if err := d.Destroy(t.Context(), m); !isCode(err, vm.CodeOpen) || !strings.Contains(err.Error(), "disk.vmdk.lck") {
		t.Errorf("Destroy with a disk locked: got %v, want %s that names it", err, vm.CodeOpen)
	}
	must(t, os.RemoveAll(filepath.Join(m.Dir, "disk.vmdk.lck")))
	must(t, d.Destroy(t.Context(), m))
}

// While a process uses a machine, nothing of it is removed, even if VMware answers that the machine does not exist.
func TestLockOfUnknownMachine(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines.Unlock = 200 * time.Millisecond
	d := h.open()
	m := h.running(d)
	for _, function := range []string{"Vix_GetProperties", "VixVM_Delete"} {
		h.set("error."+function, 4000)
	}
	if err := d.Destroy(t.Context(), m); !isCode(err, vm.CodeOpen) || !strings.Contains(err.Error(), "still locked") {
		t.Errorf("got %v, want %s", err, vm.CodeOpen)
	}
	h.clear()
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("Inspect: got %+v, %v, want powered-on", st, err)
	}
	must(t, d.Destroy(t.Context(), m))
}

// A machine with a damaged .vmx cannot be read. It can be destroyed when no process uses it.
func TestDamagedMachine(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.running(d)
	must(t, os.WriteFile(filepath.Join(m.Dir, m.ID+".vmx"), nil, 0o600))
	other := h.open()
	if _, err := other.Inspect(t.Context(), m); !isCode(err, vm.CodeOpen) {
		t.Errorf("Inspect: got %v, want %s", err, vm.CodeOpen)
	}
	if err := other.Destroy(t.Context(), m); !isCode(err, vm.CodeOpen) {
		t.Errorf("Destroy while it runs: got %v, want %s", err, vm.CodeOpen)
	}
	must(t, os.RemoveAll(filepath.Join(m.Dir, m.ID+".vmx.lck")))
	must(t, other.Destroy(t.Context(), m))
	h.checkGone(other, m)
	must(t, d.Destroy(t.Context(), m)) // d still has it open
}

// A machine's handle can become invalid, for example if another program deletes the machine. The call that finds out
// opens the machine again.
func TestInvalidHandle(t *testing.T) {
	h := newHarness(t)
	d, other := h.open(), h.open()
	m := h.running(d)
	must(t, other.Destroy(t.Context(), m))
	must(t, other.Clone(t.Context(), m, h.gold))
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOff {
		t.Errorf("Inspect with an invalid handle: got %+v, %v, want powered-off", st, err)
	}
	must(t, d.Destroy(t.Context(), m))
}

func isCode(err error, code vm.Code) bool {
	var e *vm.Error
	return errors.As(err, &e) && e.Code == code
}
