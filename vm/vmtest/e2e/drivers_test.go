package e2e_test

import (
	"debug/elf"
	"debug/macho"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// refused starts a daemon that must not start, and returns what it says.
func refused(t *testing.T, binary, data string, args ...string) string {
	t.Helper()
	d, err := e2e.Start(e2e.Options{Binary: binary, Data: data, Args: args})
	if err == nil {
		harness.Must(t, d.Stop())
		t.Fatalf("%q: the daemon started", args)
	}
	return err.Error()
}

func wantParts(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(got, part) {
			t.Errorf("%s: got %q, want %q in it", what, got, part)
		}
	}
}

// noVMware skips a test that tells of hosts without VMware.
func noVMware(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/usr/lib/libvixAllProducts.so", "/usr/lib/vmware-vix", "/Applications/VMware Fusion.app"} {
		if _, err := os.Stat(path); err == nil {
			t.Skipf("VMware is installed here: %s", path)
		}
	}
}

// Without VMware the daemon that insists on it says where it looked, and the
// one that may choose takes QEMU and says why.
func TestDriverWithoutVMware(t *testing.T) {
	noVMware(t)
	places := []string{"/usr/lib/vmware-vix/libvixAllProducts.so", "/usr/lib/libvixAllProducts.so"}
	if runtime.GOOS == "darwin" {
		places = []string{"/Applications/VMware Fusion.app/Contents/Public/libvixAllProducts.dylib"}
	}
	got := refused(t, harness.Binary(t), t.TempDir(), "-driver", "vix")
	wantParts(t, "-driver vix", got, append(places, "-vix-library", "install VMware")...)
	got = refused(t, harness.Binary(t), t.TempDir(), "-driver", "vix", "-vix-library", "/no/such.so")
	wantParts(t, "-vix-library", got, "/no/such.so", "no such file")

	s := harness.New(t, "-driver", "auto")
	if n := strings.Count(s.Log(), "driver chosen"); n != 1 {
		t.Errorf("got %d lines about the driver, want 1", n)
	}
	wantParts(t, "-driver auto", s.Log(), append(places, `"driver":"qemu"`)...)
}

// Where VMware answers, the daemon that may choose takes it.
func TestDriverWithVMware(t *testing.T) {
	t.Parallel()
	s := harness.New(t, "-driver", "auto", "-vix-library", libvix(t))
	wantParts(t, "-driver auto", s.Log(), `"driver":"vix"`, `"asked":"auto"`)
}

// A build without VIX support says so, and runs on QEMU.
func TestDriverNotBuilt(t *testing.T) {
	t.Parallel()
	plain := harness.PlainBinary(t)
	wantParts(t, "-driver vix", refused(t, plain, t.TempDir(), "-driver", "vix"), "built without VIX support", "make")
	for path, want := range map[string]string{plain: "drivers: qemu", harness.Binary(t): "drivers: vix, qemu"} {
		out, err := exec.Command(path, "-version").Output()
		harness.Must(t, err)
		if got := strings.TrimSpace(string(out)); !strings.HasSuffix(got, want) {
			t.Errorf("-version: got %q, want it to end in %q", got, want)
		}
	}
}

// Machines are not handed to a hypervisor that did not make them: it would
// neither see them running nor end them.
func TestMachinesStayOnTheirHypervisor(t *testing.T) {
	t.Parallel()
	noVMware(t)
	w := newVMware(t)
	v := w.WaitReady(w.Create(w.Image(harness.TinyVM).Body(harness.SmallVM(nil))).ID)
	harness.Must(t, w.Stop())
	wantParts(t, "-driver qemu", refused(t, harness.Binary(t), w.Data, "-driver", "qemu"), "1 machines", "run on VMware", "-driver vix", "-data")
	wantParts(t, "-driver auto", refused(t, harness.Binary(t), w.Data, "-driver", "auto"), "libvixAllProducts")
	w.Start()
	w.Destroy(v.ID)

	data := t.TempDir()
	clone := filepath.Join(data, "vms", v.ID)
	harness.Must(t, os.MkdirAll(clone, 0o700))
	harness.Must(t, os.WriteFile(filepath.Join(clone, "machine.json"), []byte("{}"), 0o600))
	library := w.Args[len(w.Args)-1]
	wantParts(t, "-driver vix", refused(t, harness.Binary(t), data, "-driver", "vix", "-vix-library", library), "1 machines", "run on QEMU", "-driver qemu")
	d, err := e2e.Start(e2e.Options{Binary: harness.Binary(t), Data: data, Args: []string{"-vix-library", library}})
	harness.Must(t, err)
	harness.Must(t, d.Stop())
	wantParts(t, "-driver auto", d.Log(), `"driver":"qemu"`, "machines of the data folder run on it")
}

// The daemon that drives VMware is linked with no library of VMware's, so that
// it starts where there is none.
func TestNoLibraryOfVMware(t *testing.T) {
	t.Parallel()
	var libraries []string
	var err error
	if runtime.GOOS == "darwin" {
		var f *macho.File
		f, err = macho.Open(harness.Binary(t))
		harness.Must(t, err)
		libraries, err = f.ImportedLibraries()
	} else {
		var f *elf.File
		f, err = elf.Open(harness.Binary(t))
		harness.Must(t, err)
		libraries, err = f.ImportedLibraries()
	}
	harness.Must(t, err)
	if len(libraries) == 0 {
		t.Error("the binary is linked with no library at all; was it built with cgo?")
	}
	for _, l := range libraries {
		if strings.Contains(strings.ToLower(l), "vix") || strings.Contains(strings.ToLower(l), "vmware") {
			t.Errorf("the binary needs %s", l)
		}
	}
}
