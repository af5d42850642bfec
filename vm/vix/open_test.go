//go:build vix && cgo && !windows

package vix_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vix"
)

// printOpenResult is what the process of openResult does.
func printOpenResult(library string) {
	dir, err := os.MkdirTemp("", "vix")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	d, err := vix.Open(vix.Options{Dir: dir, Library: library})
	if e := new(vm.Error); errors.As(err, &e) {
		fmt.Printf("%s %s\n", e.Code, e.Message)
		return
	}
	fmt.Println("opened", err, d.Close())
}

// openResult returns the result of Open in another process, because a process can open only one library.
func openResult(t *testing.T, library string) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "OSXB_TEST_OPEN="+library, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "some.c")
	must(t, os.WriteFile(source, []byte("__attribute__((visibility(\"default\"))) int Vix_GetErrorText(void) { return 0; }\n"), 0o644))
	half := filepath.Join(dir, "half.so")
	if out, err := build(half, source); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	foreign := filepath.Join(dir, "foreign.so")
	must(t, os.WriteFile(foreign, []byte("\x7fELF and nothing more"), 0o644))
	another := filepath.Join(dir, "another.so")
	must(t, os.WriteFile(another, foreignLibrary(t), 0o644))

	for name, c := range map[string]struct {
		library string
		want    []string
	}{
		"nowhere":             {"", append(vix.LibraryPaths(runtime.GOOS), "-vix-library", "install VMware")},
		"no such file":        {"/no/such.so", []string{"/no/such.so", "no such file", "-vix-library"}},
		"a relative path":     {"libvix.so", []string{"libvix.so", "not absolute"}},
		"a missing function":  {half, []string{half, "no function Vix_ReleaseHandle"}},
		"no library at all":   {foreign, []string{foreign, runtime.GOARCH}},
		"a folder":            {dir, []string{dir}},
		"another processor":   {another, []string{another, "this program is " + runtime.GOARCH}},
		"the double is there": {double, []string{"opened <nil> <nil>"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.library == "" && exists(vix.LibraryPaths(runtime.GOOS)...) {
				t.Skip("VMware is installed on this host")
			}
			got := openResult(t, c.library)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("got %q, want %q in it", got, want)
				}
			}
			if c.library != double && !strings.HasPrefix(got, string(vm.CodeHypervisorUnavailable)) {
				t.Errorf("got %q, want code %s", got, vm.CodeHypervisorUnavailable)
			}
		})
	}
}

// foreignLibrary returns the double with the header of a processor that no host has.
func foreignLibrary(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(double)
	must(t, err)
	at := 18 // ELF's e_machine
	if runtime.GOOS == "darwin" {
		at = 4 // Mach-O's cputype
	}
	data[at], data[at+1] = 0x7f, 0x7f
	return data
}

func exists(paths ...string) bool {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// A process that uses one library cannot open another.
func TestOpenOneLibrary(t *testing.T) {
	h := newHarness(t)
	h.open()
	o := h.options
	o.Library = "/another.so"
	if _, err := vix.Open(o); err == nil || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("got %v, want an error that says that a library is already in use", err)
	}
}

// The paths of VMware's libraries are those of its installers.
func TestLibraryPaths(t *testing.T) {
	for goos, want := range map[string]string{
		"linux":  "/usr/lib/vmware-vix/libvixAllProducts.so",
		"darwin": "/Applications/VMware Fusion.app/Contents/Public/libvixAllProducts.dylib",
	} {
		if got := vix.LibraryPaths(goos); got[0] != want {
			t.Errorf("%s: got %q first, want %q", goos, got, want)
		}
	}
}

func TestConnect(t *testing.T) {
	for name, c := range map[string]struct {
		control map[string]string
		goos    string
		options int
		want    string
	}{
		"licence":                {map[string]string{"connect.options": "0x200"}, "linux", 0, "VIX error 32"},
		"licence, on macOS":      {map[string]string{"connect.options": "0x200"}, "darwin", 0, ""},
		"no licence at all":      {map[string]string{"error.VixHost_Connect": "32"}, "darwin", 0, "licence"},
		"other options given":    {map[string]string{"connect.options": "0x200"}, "darwin", 0x4000, "VIX error 32"},
		"with vmrun's bit":       {map[string]string{"connect.options": "0x200"}, "linux", 0x200, ""},
		"Workstation is missing": {map[string]string{"error.VixHost_Connect": "22001"}, "linux", 0, "Workstation is not installed, but its VIX library is"},
		"of another version":     {map[string]string{"error.VixHost_Connect": "22002"}, "linux", 0, "vixwrapper-config.txt"},
		"product is missing":     {map[string]string{"error.VixHost_Connect": "22003"}, "linux", 0, "product that VIX needs is not installed"},
		"no VIX for it":          {map[string]string{"error.VixHost_Connect": "6000"}, "linux", 0, "VIX error 6000"},
		"Player is missing":      {map[string]string{"error.VixHost_Connect": "22004"}, "linux", 0, "Player is not installed"},
		"no product":             {map[string]string{"error.VixHost_Connect": "22005"}, "linux", 0, fmt.Sprintf("vmware-vixWrapper-%d.log", os.Getpid())},
		"hangs":                  {map[string]string{"hang.VixHost_Connect": ""}, "linux", 0, "did not accept a connection within"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			for file, content := range c.control {
				h.set(file, content)
			}
			t.Cleanup(h.clear)
			h.options.HostOptions = c.options
			if name == "hangs" {
				h.options.Deadlines.Connect = 300e6
			}
			d, err := vix.OpenOn(c.goos, h.options)
			if c.want == "" {
				must(t, err)
				must(t, d.Close())
				return
			}
			var e *vm.Error
			if !errors.As(err, &e) || e.Code != vm.CodeHypervisorUnavailable || !strings.Contains(e.Message, c.want) || !strings.Contains(e.Message, double) {
				t.Errorf("got %v, want %s with %q and the library's path", err, vm.CodeHypervisorUnavailable, c.want)
			}
			if n := strings.Count(strings.ToLower(e.Message), "no vmware product is installed"); n > 1 {
				t.Errorf("got %q, which repeats itself", e.Message)
			}
			if _, err := os.Stat(h.options.Dir); err == nil {
				t.Error("a folder for base machines was created without VMware")
			}
		})
	}
}
