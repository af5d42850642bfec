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
	"time"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// startError starts a daemon that must fail to start, and returns its error.
func startError(t *testing.T, binary, data string, args ...string) string {
	t.Helper()
	d, err := e2e.Start(e2e.Options{Binary: binary, Data: data, Args: args})
	if err == nil {
		harness.Must(t, d.Stop())
		t.Fatalf("%q: the daemon started", args)
	}
	return err.Error()
}

func wantContains(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(got, part) {
			t.Errorf("%s: got %q, want %q in it", what, got, part)
		}
	}
}

// requireNoVMware skips a test of hosts without VMware if VMware is installed.
func requireNoVMware(t *testing.T) {
	t.Helper()
	for _, path := range []string{
		"/usr/lib/libvixAllProducts.so", "/usr/lib/vmware-vix", "/Applications/VMware Fusion.app",
	} {
		if _, err := os.Stat(path); err == nil {
			harness.Without(t, "this test needs a host without VMware, and VMware is installed: "+path)
		}
	}
}

// Without VMware, -driver vix fails with the paths that were searched, and -driver
// auto chooses QEMU and logs why. The start takes one line each for the data folder, the driver with its acceleration,
// and the addresses of the API and the page.
func TestDriverWithoutVMware(t *testing.T) {
	requireNoVMware(t)
	paths := []string{"/usr/lib/vmware-vix/libvixAllProducts.so", "/usr/lib/libvixAllProducts.so"}
	if runtime.GOOS == "darwin" {
		paths = []string{"/Applications/VMware Fusion.app/Contents/Public/libvixAllProducts.dylib"}
	}
	got := startError(t, harness.Binary(t), t.TempDir(), "-driver", "vix")
	wantContains(t, "-driver vix", got, append(paths, "-vix-library", "install VMware")...)
	got = startError(t, harness.Binary(t), t.TempDir(), "-driver", "vix", "-vix-library", "/no/such.so")
	wantContains(t, "-vix-library", got, "/no/such.so", "no such file")

	s := harness.New(t, "-driver", "auto")
	for deadline := time.Now().Add(harness.Timeout); !strings.Contains(s.Log(), `"msg":"listening"`) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // the last of the lines
	}
	if n := strings.Count(s.Log(), "driver chosen"); n != 1 {
		t.Errorf("got %d log lines about the choice of the driver, want 1", n)
	}
	wantContains(t, "-driver auto", s.Log(), `"msg":"data folder","path":"`+s.Data+`"`, `"driver":"qemu"`, `"why":"VMware is not available"`,
		`"acceleration":"`, `"page":"`+s.URL+`/"`)
	if strings.Contains(s.Log(), paths[0]) {
		t.Errorf("the log lists where VMware's library was searched: %s", s.Log())
	}
}

// If VMware is available, -driver auto chooses it.
func TestDriverWithVMware(t *testing.T) {
	t.Parallel()
	s := harness.New(t, "-driver", "auto", "-vix-library", buildVIXDouble(t))
	wantContains(t, "-driver auto", s.Log(), `"driver":"vix"`, `"asked":"auto"`)
}

// A build without VIX support says so if -driver vix is set, and supports QEMU.
func TestDriverNotBuilt(t *testing.T) {
	t.Parallel()
	plain := harness.PlainBinary(t)
	got := startError(t, plain, t.TempDir(), "-driver", "vix")
	wantContains(t, "-driver vix", got, "built without VIX support", "make")
	for path, want := range map[string]string{plain: "drivers: vmrun, qemu, vsphere", harness.Binary(t): "drivers: vix, vmrun, qemu, vsphere"} {
		out, err := exec.Command(path, "-version").Output()
		harness.Must(t, err)
		if got := strings.TrimSpace(string(out)); !strings.HasSuffix(got, want) {
			t.Errorf("-version: got %q, want it to end in %q", got, want)
		}
	}
}

// The daemon does not start with another driver than that of its machines, which
// could neither see nor stop them.
func TestMachinesKeepTheirDriver(t *testing.T) {
	t.Parallel()
	requireNoVMware(t)
	w := newVMware(t)
	v := w.WaitReady(w.Create(w.Image(harness.TinyVM).Body(harness.SmallVM(nil))).ID)
	harness.Must(t, w.Stop())
	got := startError(t, harness.Binary(t), w.Data, "-driver", "qemu")
	wantContains(t, "-driver qemu", got, "1 machines", "run on VMware", "-driver vix", "-data")
	got = startError(t, harness.Binary(t), w.Data, "-driver", "auto")
	wantContains(t, "-driver auto", got, "libvixAllProducts")
	w.Start()
	w.Destroy(v.ID)

	data := t.TempDir()
	clone := filepath.Join(data, "vms", v.ID)
	harness.Must(t, os.MkdirAll(clone, 0o700))
	harness.Must(t, os.WriteFile(filepath.Join(clone, "machine.json"), []byte("{}"), 0o600))
	library := w.Args[len(w.Args)-1]
	got = startError(t, harness.Binary(t), data, "-driver", "vix", "-vix-library", library)
	wantContains(t, "-driver vix", got, "1 machines", "run on QEMU", "-driver qemu")
	d, err := e2e.Start(e2e.Options{Binary: harness.Binary(t), Data: data, Args: []string{"-vix-library", library}})
	harness.Must(t, err)
	harness.Must(t, d.Stop())
	wantContains(t, "-driver auto", d.Log(), `"driver":"qemu"`, "machines of the data folder run on it")
}

// The daemon with VIX support is not linked with a library of VMware, so that it
// starts on hosts without VMware.
func TestNotLinkedWithVMware(t *testing.T) {
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
		t.Error("the binary is not linked with any library; was it built with cgo?")
	}
	for _, l := range libraries {
		if strings.Contains(strings.ToLower(l), "vix") || strings.Contains(strings.ToLower(l), "vmware") {
			t.Errorf("the binary needs %s", l)
		}
	}
}
