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

// lock claims a machine's .vmx as VMware's processes do.
func lock(t *testing.T, m vm.Machine, content string) (path string) {
	t.Helper()
	path = filepath.Join(m.Dir, m.ID+".vmx.lck")
	must(t, os.MkdirAll(path, 0o755))
	must(t, os.WriteFile(filepath.Join(path, "M12345.lck"), []byte(content), 0o644))
	return path
}

// deadProcess is the number of a process that has ended.
func deadProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	must(t, cmd.Run())
	return cmd.Process.Pid
}

// A crash can leave a lock behind, which must not be in the way.
func TestStaleLock(t *testing.T) {
	b := newBench(t)
	d := b.open()
	m := b.machine()
	stale := fmt.Sprintf("host %d-123(vmware-vmx) 7 X [ lc=1", deadProcess(t)) + strings.Repeat("\x00", 100)
	must(t, d.Clone(t.Context(), m, b.gold))
	lock(t, m, stale)
	must(t, d.Start(t.Context(), m))
	must(t, d.Destroy(t.Context(), m))

	must(t, d.Clone(t.Context(), m, b.gold))
	lock(t, m, stale)
	must(t, d.Destroy(t.Context(), m))
	b.gone(d, m)

	bases, err := filepath.Glob(filepath.Join(b.options.Dir, "*", "vmware", "machine"))
	must(t, err)
	lock(t, vm.Machine{Dir: bases[0], ID: "gold"}, stale)
	must(t, d.Clone(t.Context(), m, b.gold))
	must(t, d.Destroy(t.Context(), m))
}

// A lock of a process that lives, or that nobody can tell, is left alone.
func TestLockInUse(t *testing.T) {
	for name, content := range map[string]string{
		"by a process that lives": fmt.Sprintf("host %d-123(vmware-vmx) 7 X", os.Getpid()),
		"in an unknown form":      "something else",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.options.Deadlines.Locks = 200 * time.Millisecond
			d := b.open()
			m := b.machine()
			must(t, d.Clone(t.Context(), m, b.gold))
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

// A window that shows the machine locks its .vmx: VMware may close it to delete
// the machine. A lock of a disk is another matter.
func TestLockOfAWindow(t *testing.T) {
	b := newBench(t)
	b.options.Deadlines.Locks = 200 * time.Millisecond
	b.set("window", "")
	d := b.open()
	m := b.machine()
	shown := fmt.Sprintf("host %d-123(vmware) 7 X", os.Getpid())
	must(t, d.Clone(t.Context(), m, b.gold))
	lock(t, m, shown)
	must(t, d.Destroy(t.Context(), m))
	b.gone(d, m)

	must(t, d.Clone(t.Context(), m, b.gold))
	path := lock(t, m, shown)
	must(t, os.Rename(path, filepath.Join(m.Dir, "disk.vmdk.lck")))
	if err := d.Destroy(t.Context(), m); !isCode(err, vm.CodeOpen) || !strings.Contains(err.Error(), "disk.vmdk.lck") {
		t.Errorf("Destroy with a disk locked: got %v, want %s that names it", err, vm.CodeOpen)
	}
	must(t, os.RemoveAll(filepath.Join(m.Dir, "disk.vmdk.lck")))
	must(t, d.Destroy(t.Context(), m))
}

// Nothing of a machine is removed while a process uses it, also where VMware
// says that it knows of no such machine.
func TestLockOfAnUnknownMachine(t *testing.T) {
	b := newBench(t)
	b.options.Deadlines.Locks = 200 * time.Millisecond
	d := b.open()
	m := b.running(d)
	for _, function := range []string{"Vix_GetProperties", "VixVM_Delete"} {
		b.set("error."+function, 4000)
	}
	if err := d.Destroy(t.Context(), m); !isCode(err, vm.CodeOpen) || !strings.Contains(err.Error(), "still locked") {
		t.Errorf("got %v, want %s", err, vm.CodeOpen)
	}
	b.clear()
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("Inspect: got %+v, %v, want powered-on", st, err)
	}
	must(t, d.Destroy(t.Context(), m))
}

// A machine whose .vmx is damaged cannot be read; it can be destroyed once no
// process uses it.
func TestDamagedMachine(t *testing.T) {
	b := newBench(t)
	d := b.open()
	m := b.running(d)
	must(t, os.WriteFile(filepath.Join(m.Dir, m.ID+".vmx"), nil, 0o600))
	other := b.open()
	if _, err := other.Inspect(t.Context(), m); !isCode(err, vm.CodeOpen) {
		t.Errorf("Inspect: got %v, want %s", err, vm.CodeOpen)
	}
	if err := other.Destroy(t.Context(), m); !isCode(err, vm.CodeOpen) {
		t.Errorf("Destroy while it runs: got %v, want %s", err, vm.CodeOpen)
	}
	must(t, os.RemoveAll(filepath.Join(m.Dir, m.ID+".vmx.lck")))
	must(t, other.Destroy(t.Context(), m))
	b.gone(other, m)
	must(t, d.Destroy(t.Context(), m)) // which still has it open
}

// VMware can void a machine's handle, as when another program deletes the
// machine. One call fails for it; the next opens the machine anew.
func TestVoidHandle(t *testing.T) {
	b := newBench(t)
	d, other := b.open(), b.open()
	m := b.running(d)
	must(t, other.Destroy(t.Context(), m))
	must(t, other.Clone(t.Context(), m, b.gold))
	if _, err := d.Inspect(t.Context(), m); !isCode(err, vm.CodeOpen) {
		t.Errorf("Inspect with a void handle: got %v, want %s", err, vm.CodeOpen)
	}
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOff {
		t.Errorf("Inspect again: got %+v, %v, want powered-off", st, err)
	}
	must(t, d.Destroy(t.Context(), m))
}

func isCode(err error, code vm.Code) bool {
	var e *vm.Error
	return errors.As(err, &e) && e.Code == code
}
