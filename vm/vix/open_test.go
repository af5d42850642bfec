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

	"osx-builder/vm"
	"osx-builder/vm/vix"
)

// openAndTell is what the process of opened does.
func openAndTell(library string) {
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

// opened returns what Open says in a process of its own: one process opens one
// library.
func opened(t *testing.T, library string) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "OSXB_TEST_OPEN="+library)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "some.c")
	must(t, os.WriteFile(source, []byte("__attribute__((visibility(\"default\"))) int Vix_GetErrorText(void) { return 0; }\n"), 0o644))
	half := filepath.Join(dir, "half.so")
	if out, err := build(half, source); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	foreign := filepath.Join(dir, "foreign.so")
	must(t, os.WriteFile(foreign, []byte("\x7fELF not for this machine"), 0o644))

	for name, c := range map[string]struct {
		library string
		want    []string
	}{
		"nowhere":             {"", []string{"/usr/lib/vmware-vix/libvixAllProducts.so", "/usr/lib/libvixAllProducts.so", "-vix-library"}},
		"no such file":        {"/no/such.so", []string{"/no/such.so", "no such file", "-vix-library"}},
		"a relative path":     {"libvix.so", []string{"libvix.so", "not absolute"}},
		"a missing function":  {half, []string{half, "no function Vix_ReleaseHandle"}},
		"no library at all":   {foreign, []string{foreign}},
		"a folder":            {dir, []string{dir}},
		"the double is there": {double, []string{"opened <nil> <nil>"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.library == "" && exists("/usr/lib/libvixAllProducts.so", "/Applications/VMware Fusion.app") {
				t.Skip("VMware is installed here")
			}
			got := opened(t, c.library)
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

func exists(paths ...string) bool {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// A process that uses one library is not silently given another.
func TestOpenOneLibrary(t *testing.T) {
	b := newBench(t)
	b.open()
	o := b.options
	o.Library = "/another.so"
	if _, err := vix.Open(o); err == nil || !strings.Contains(err.Error(), "in use already") {
		t.Errorf("got %v, want an error that says that a library is in use already", err)
	}
}

func TestConnect(t *testing.T) {
	for name, c := range map[string]struct {
		control map[string]string
		options int
		want    string
	}{
		"licence":          {map[string]string{"connect.options": "0x200"}, 0, "VIX error 32"},
		"with vmrun's bit": {map[string]string{"connect.options": "0x200"}, 0x200, ""},
		"no product":       {map[string]string{"error.VixHost_Connect": "22005"}, 0, "VIX error 22005"},
		"hangs":            {map[string]string{"hang.VixHost_Connect": ""}, 0, "did not connect to VMware within"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for file, content := range c.control {
				b.set(file, content)
			}
			t.Cleanup(b.clear)
			b.options.HostOptions = c.options
			b.options.Deadlines.Connect = 300e6
			d, err := vix.Open(b.options)
			if c.want == "" {
				must(t, err)
				must(t, d.Close())
				return
			}
			var e *vm.Error
			if !errors.As(err, &e) || e.Code != vm.CodeHypervisorUnavailable || !strings.Contains(e.Message, c.want) || !strings.Contains(e.Message, double) {
				t.Errorf("got %v, want %s with %q and the library's path", err, vm.CodeHypervisorUnavailable, c.want)
			}
		})
	}
}
