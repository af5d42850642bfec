package windows_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"

	"osx-builder/config"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/hypervisor"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmware"
)

// underWine reports whether this is wine and not Windows.
var underWine = windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil

var noLog = slog.New(slog.DiscardHandler)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A file that a reader has open is replaced, and removed, once the reader closes it. Nothing else is left.
func TestReplaceWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, image.WriteFile(path, []byte("old")))
	whileOpen := func(change func() error) {
		t.Helper()
		f, err := os.Open(path)
		must(t, err)
		done := make(chan error)
		go func() { done <- change() }()
		must(t, f.Close())
		must(t, <-done)
	}
	whileOpen(func() error { return image.WriteFile(path, []byte("new")) })
	if b, err := os.ReadFile(path); err != nil || string(b) != "new" {
		t.Errorf("got %q, %v, want the new file", b, err)
	}
	whileOpen(func() error { return image.Remove(path) })
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) > 0 {
		t.Errorf("got %v, %v, want nothing", entries, err)
	}
}

// A data folder is closed to other users, and its second user learns who the first is. A folder with other files keeps
// its access control list.
func TestDataFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	must(t, os.Mkdir(path, 0o777))
	open(t, path)
	data, err := vm.OpenDataFolder(path, "the first", noLog)
	must(t, err)
	if underWine {
		t.Log("wine keeps no access control lists of its own, so they are not checked")
	} else if sddl := list(t, path); strings.Contains(sddl, ";;;WD)") || !strings.HasPrefix(sddl, "D:P") {
		t.Errorf("the access control list: got %s, want one of its own, without everybody", sddl)
	}
	if _, err := vm.OpenDataFolder(path, "the second", noLog); err == nil || !strings.Contains(err.Error(), "the first") {
		t.Errorf("opened twice: got %v, want an error that names the first", err)
	}
	must(t, data.Close())

	other := filepath.Join(t.TempDir(), "other")
	must(t, os.Mkdir(other, 0o777))
	open(t, other)
	must(t, os.WriteFile(filepath.Join(other, "thesis.txt"), nil, 0o666))
	before := list(t, other)
	data, err = vm.OpenDataFolder(other, "the first", noLog)
	must(t, err)
	if after := list(t, other); after != before {
		t.Errorf("with other files: got the list %s, want %s", after, before)
	}
	must(t, data.Close())
}

// open gives everybody access to a folder.
func open(t *testing.T, path string) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString("D:(A;OICI;FA;;;WD)")
	must(t, err)
	acl, _, err := sd.DACL()
	must(t, err)
	must(t, windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, acl, nil))
}

// list returns a folder's access control list as text.
func list(t *testing.T, path string) string {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	must(t, err)
	return sd.String()
}

// A lock is held as long as its process runs. What VMware's locks have as start time decides nothing here, unless it is
// that of the process, by which the ID of this host is learned.
func TestLocks(t *testing.T) {
	var created, exited, kernel, user windows.Filetime
	must(t, windows.GetProcessTimes(windows.CurrentProcess(), &created, &exited, &kernel, &user))
	own := uint64(created.HighDateTime)<<32 | uint64(created.LowDateTime)
	const none = 4_000_000_000 // no process has this ID
	for name, c := range map[string]struct {
		pid, start uint64
		held       string // in the error, or "" if the lock is not held
	}{
		"of this process":                     {uint64(os.Getpid()), own, fmt.Sprintf("process %d", os.Getpid())},
		"with a start time of unknown units":  {uint64(os.Getpid()), 17, fmt.Sprintf("process %d", os.Getpid())},
		"of a process that ended":             {none, own, ""},
		"of a process of another, dead, host": {none, 17, "may be another host"},
	} {
		m := vm.Machine{ID: "m", Dir: t.TempDir()}
		dir := filepath.Join(m.Dir, "m.vmx.lck")
		must(t, os.Mkdir(dir, 0o755))
		claim := func(pid, start uint64) {
			must(t, os.WriteFile(filepath.Join(dir, "M00001.lck"), fmt.Appendf(nil, "uuid=double %d-%d(vmware-vmx.exe) 1 X", pid, start), 0o644))
		}
		locks := vmware.NewLocks("", noLog)
		if c.held == "" {
			claim(uint64(os.Getpid()), own)
			locks.Learn(m)
		}
		claim(c.pid, c.start)
		if err := locks.Held(m); c.held == "" && err != nil || c.held != "" && (err == nil || !strings.Contains(err.Error(), c.held)) {
			t.Errorf("a lock %s: got %v, want %q", name, err, c.held)
		}
	}
	if got := vmware.HostMemory(); got < 64 || got > 64<<20 {
		t.Errorf("the host's memory: got %d MiB", got)
	}
}

// The data folder is below the user's local data, there are no Unix sockets, and the driver qemu says what to use.
func TestSettings(t *testing.T) {
	env := func(name string) string {
		if name == "USERPROFILE" {
			return `C:\Users\ci`
		}
		return ""
	}
	c, err := config.Load(nil, env)
	must(t, err)
	if want := `C:\Users\ci\AppData\Local\osx-builder`; c.Data != want {
		t.Errorf("got the data folder %s, want %s", c.Data, want)
	}
	c, err = config.Load([]string{"-data", `~\vms`}, env)
	if err != nil || c.Data != `C:\Users\ci\vms` {
		t.Errorf("-data ~\\vms: got %s, %v", c.Data, err)
	}
	if _, err := config.Load([]string{"-listen", `unix:C:\socket`}, env); err == nil || !strings.Contains(err.Error(), "no Unix sockets") {
		t.Errorf("-listen unix: got %v, want that there are none", err)
	}
	data, err := vm.OpenDataFolder(t.TempDir(), "a test", noLog)
	must(t, err)
	defer data.Close()
	for name, driver := range map[string]string{"qemu": "qemu", "auto": hypervisor.Auto} {
		_, _, err = hypervisor.Choose(t.Context(), hypervisor.Options{
			Driver: driver, Data: data, Log: noLog,
			Candidates: hypervisor.Drivers(data, noLog, vix.Options{}, "", hypervisor.QEMU{}, hypervisor.VSphere{}),
		})
		missing, ok := errors.AsType[*vm.Error](err)
		if !ok || missing.Code != vm.CodeHypervisorUnavailable || !strings.Contains(missing.Message, "vmrun") {
			t.Errorf("-driver %s: got %v, want that it is not available, and vmrun", name, err)
		}
	}
}
