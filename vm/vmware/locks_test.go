package vmware_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// self is this process, in the form of VMware's locks.
func self(t *testing.T) string {
	t.Helper()
	start, ok := vmware.ProcessStart(os.Getpid())
	if !ok || start == 0 {
		t.Fatalf("the start time of this process: got %d, %v", start, ok)
	}
	return fmt.Sprintf("%d-%d(vmware-vmx)", os.Getpid(), start)
}

// exited returns the ID of a process that has exited.
func exited(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	must(t, cmd.Run())
	return cmd.Process.Pid
}

// claim writes a file of the lock of a machine's .vmx, as long as VMware's.
func claim(t *testing.T, m vm.Machine, name, content string) (path string) {
	t.Helper()
	path = filepath.Join(m.Dir, m.ID+".vmx.lck", name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content+strings.Repeat("\x00", 512-len(content))), 0o644))
	return path
}

// A claim that is not whole is one that a process is writing, or that a kill or a crash of the host has left.
func TestTornClaim(t *testing.T) {
	for name, content := range map[string]string{
		"empty":         "",
		"cut off":       "uuid=0f-aa 12",
		"full of zeros": strings.Repeat("\x00", 512),
	} {
		t.Run(name, func(t *testing.T) {
			m := vm.Machine{ID: "m", Dir: t.TempDir()}
			locks := newLocks("")
			path := claim(t, m, "M00001.lck", "")
			must(t, os.WriteFile(path, []byte(content), 0o644))
			if err := locks.Held(m); err == nil || !strings.Contains(err.Error(), "takes the lock") {
				t.Errorf("while it may be written: got %v, want a lock that a process takes", err)
			}
			old := time.Now().Add(-time.Minute)
			must(t, os.Chtimes(path, old, old))
			if err := locks.Held(m); err != nil || !locks.RemoveStale(m.Dir) {
				t.Errorf("after a minute: got %v, want a stale lock that is removed", err)
			}
		})
	}
}

func newLocks(path string) *vmware.Locks { return vmware.NewLocks(path, slog.New(slog.DiscardHandler)) }

// Which locks are held, and which are stale and removed.
func TestLocks(t *testing.T) {
	const own, foreign = "uuid=0f-aa", "uuid=0f-bb"
	dead := exited(t)
	for name, c := range map[string]struct {
		file, content string
		age           time.Duration
		held          string // a part of the error, or "" if the lock is stale
	}{
		"of a running process":                   {"M00001.lck", own + " " + self(t) + " 7 X [ lc=1", 0, fmt.Sprint("process ", os.Getpid())},
		"of a running process without its time":  {"M00001.lck", fmt.Sprintf("%s %d 7 X", own, os.Getpid()), 0, fmt.Sprint("process ", os.Getpid())},
		"of an exited process":                   {"M00001.lck", fmt.Sprintf("%s %d-123(vmware-vmx) 7 X", own, dead), 0, ""},
		"of a process whose ID is in use again":  {"M00001.lck", fmt.Sprintf("%s %d-1(vmware-vmx) 7 X", own, os.Getpid()), 0, ""},
		"of another host":                        {"M00001.lck", fmt.Sprintf("%s %d-123(vmware-vmx) 7 X", foreign, dead), 0, "another host"},
		"of another host, where the ID runs too": {"M00001.lck", fmt.Sprintf("%s %d-1(vmware-vmx) 7 X", foreign, os.Getpid()), 0, "another host"},
		"in another form":                        {"M00001.lck", "something else", 0, "unknown process"},
		"in a file that is no part of a lock":    {"M00001.lck.tmp", "", 0, ""},
		"of a process that enters":               {"E00001.lck", "", 0, "takes the lock"},
		"of a process that died while it entered": {
			"E00001.lck", "", time.Minute, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := vm.Machine{ID: "m", Dir: t.TempDir()}
			locks := newLocks("")
			known := claim(t, m, "M00009.lck", own+" "+self(t)+" 1 X")
			locks.Learn(m)
			must(t, os.Remove(known))

			path := claim(t, m, c.file, c.content)
			old := time.Now().Add(-c.age)
			must(t, os.Chtimes(path, old, old))
			err := locks.Held(m)
			removed := locks.RemoveStale(m.Dir)
			_, statErr := os.Stat(path)
			if c.held == "" {
				if err != nil || !removed || statErr == nil {
					t.Errorf("got %v, removed %v and %v, want a stale lock that is removed", err, removed, statErr)
				}
				return
			}
			if e := new(vm.Error); !errors.As(err, &e) || e.Code != vm.CodeOpen || !strings.Contains(e.Message, c.held) {
				t.Errorf("Held: got %v, want %s with %q", err, vm.CodeOpen, c.held)
			}
			if removed || statErr != nil {
				t.Errorf("RemoveStale: got %v and %v, want the lock kept", removed, statErr)
			}
		})
	}
}

// While a process takes a lock, VMware has a folder in it. Such a folder is no error, and one that is left is stale.
func TestEnteringFolder(t *testing.T) {
	m := vm.Machine{ID: "m", Dir: t.TempDir()}
	entering := filepath.Join(m.Dir, "m.vmx.lck", "D12345.lck")
	must(t, os.MkdirAll(entering, 0o755))
	locks := newLocks("")
	if err := locks.Held(m); err == nil || !strings.Contains(err.Error(), "takes the lock") {
		t.Errorf("got %v, want a lock that a process takes", err)
	}
	old := time.Now().Add(-time.Minute)
	must(t, os.Chtimes(entering, old, old))
	if err := locks.Held(m); err != nil || !locks.RemoveStale(m.Dir) {
		t.Errorf("after a minute: got %v, want a stale lock that is removed", err)
	}
}

// What is known of the host outlives the process, but not a move of the data folder to another host.
func TestHostIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts.json")
	m := vm.Machine{ID: "m", Dir: t.TempDir()}
	claim(t, m, "M00001.lck", "uuid=0f-aa "+self(t)+" 7 X")
	newLocks(path).Learn(m)
	claim(t, m, "M00001.lck", fmt.Sprintf("uuid=0f-aa %d-123 7 X", exited(t)))
	if err := newLocks(path).Held(m); err != nil {
		t.Errorf("a stale lock after a restart: got %v, want no error", err)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	_, ids, _ := strings.Cut(string(data), ":")
	must(t, os.WriteFile(path, []byte(`{"another host":`+ids), 0o600))
	if err := newLocks(path).Held(m); err == nil {
		t.Error("with the IDs of another host: got no error, want a lock that may be held")
	}
	must(t, os.WriteFile(path, []byte("{"), 0o600))
	damaged := newLocks(path)
	claim(t, m, "M00001.lck", "uuid=0f-aa "+self(t)+" 7 X")
	damaged.Learn(m)
	claim(t, m, "M00001.lck", fmt.Sprintf("uuid=0f-aa %d-123 7 X", exited(t)))
	if err := newLocks(path).Held(m); err != nil {
		t.Errorf("after a damaged file was written again: got %v, want no error", err)
	}
}

// brokenFolder is a folder whose listing fails after the first entries.
type brokenFolder struct{ fs.FS }

func (f brokenFolder) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(f.FS, name)
	return entries, errors.Join(err, syscall.EIO)
}

// If a folder cannot be listed completely, that is an error and does not mean that the machine is unlocked.
func TestReadLocksOfBrokenFolder(t *testing.T) {
	dir := t.TempDir()
	claim(t, vm.Machine{Dir: dir, ID: "m"}, "M00001.lck", fmt.Sprintf("uuid=0f-aa %d-123 7 X", exited(t)))
	if n, err := vmware.ReadLocks(os.DirFS(dir)); err != nil || n != 1 {
		t.Errorf("got %d locks, %v, want one", n, err)
	}
	if n, err := vmware.ReadLocks(brokenFolder{os.DirFS(dir)}); !errors.Is(err, syscall.EIO) {
		t.Errorf("a listing that fails: got %d locks, %v, want %v", n, err, syscall.EIO)
	}
	if n, err := vmware.ReadLocks(os.DirFS(filepath.Join(dir, "none"))); err != nil || n != 0 {
		t.Errorf("without the folder: got %d locks, %v, want none", n, err)
	}
}
