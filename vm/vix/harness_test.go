//go:build vix && cgo && !windows

package vix_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"osx-builder/vm"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmware"
)

// double is the path of the double of VMware's library, built by TestMain.
var double string

func TestMain(m *testing.M) {
	if path, ok := os.LookupEnv("OSXB_TEST_OPEN"); ok {
		printOpenResult(path)
		return
	}
	if path, ok := os.LookupEnv("OSXB_TEST_SIGNALS"); ok {
		causeFault(path)
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vix")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	double = filepath.Join(dir, "libvix.so")
	if out, err := build(double); err != nil {
		fmt.Fprintf(os.Stderr, "building the double: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// build builds a shared library from C sources, by default those of the double.
func build(path string, sources ...string) ([]byte, error) {
	return exec.Command("testdata/libvix/build.sh", append([]string{path}, sources...)...).CombinedOutput()
}

// harness has what a driver needs to run with the double: an image, and the double's controls.
type harness struct {
	t       *testing.T
	dir     string
	control string
	gold    string
	log     bytes.Buffer
	options vix.Options
}

// deadlines are short, so that a test can exceed them.
var deadlines = vmware.Deadlines{
	Connect: 5 * time.Second, Read: 5 * time.Second, Clone: 5 * time.Second, Start: 5 * time.Second,
	Stop: 5 * time.Second, Unlock: 5 * time.Second, Tools: time.Second,
}

const goldVMX = `.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "12"
guestOS = "debian11-64"
displayName = "gold"
memsize = "4096"
numvcpus = "8"
cpuid.coresPerSocket = "4"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "disk.vmdk"
ethernet0.present = "TRUE"
ethernet0.connectionType = "bridged"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:00:00:01"
ethernet0.generatedAddress = "00:0c:29:00:00:01"
floppy0.present = "TRUE"
firmware = "efi"
nvram = "gold.nvram"
`

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{t: t, dir: t.TempDir()}
	h.control = filepath.Join(h.dir, "control")
	must(t, os.Mkdir(h.control, 0o755))
	t.Setenv("OSXB_VIX_DOUBLE", h.control)
	h.gold = h.image("gold", goldVMX)
	h.options = vix.Options{
		Gold: h.dir, Dir: filepath.Join(h.dir, "bases"), Library: double, Deadlines: deadlines,
		Log: slog.New(slog.NewTextHandler(&h.log, nil)), Leases: vmware.Leases{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the driver's log:\n%s", h.log.String())
		}
	})
	return h
}

// image creates an unpacked image, read-only like those of the image cache.
func (h *harness) image(name, vmx string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, name)
	must(h.t, os.Mkdir(dir, 0o755))
	for file, content := range map[string]string{
		"gold.vmx": vmx, "gold.nvram": "settings", "vmware.log": "a log line",
		"disk.vmdk": "a disk of one file" + strings.Repeat("\x00", 2<<20),
	} {
		must(h.t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o444))
	}
	must(h.t, os.Chmod(dir, 0o555))
	h.t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	return filepath.Join(dir, "gold.vmx")
}

// open opens a driver, which is closed when the test ends.
func (h *harness) open() *vix.Driver {
	h.t.Helper()
	d, err := vix.Open(h.options)
	must(h.t, err)
	h.t.Cleanup(func() {
		h.clear()
		must(h.t, d.Close())
	})
	return d
}

// set writes a file of the double's control folder.
func (h *harness) set(name string, content any) {
	h.t.Helper()
	path := filepath.Join(h.control, name)
	must(h.t, os.WriteFile(path+".new", []byte(fmt.Sprint(content)), 0o644))
	must(h.t, os.Rename(path+".new", path))
}

// clear removes all errors and hangs.
func (h *harness) clear() {
	h.t.Helper()
	for _, kind := range []string{"error.*", "hang.*", "busy.*", "lost"} {
		names, err := filepath.Glob(filepath.Join(h.control, kind))
		must(h.t, err)
		for _, name := range names {
			must(h.t, os.Remove(name))
		}
	}
}

// stats reads the double's counters.
func (h *harness) stats() map[string]int {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.control, "stats"))
	must(h.t, err)
	stats := make(map[string]int)
	for line := range strings.Lines(string(data)) {
		if name, n, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			stats[name], err = strconv.Atoi(n)
			must(h.t, err)
		}
	}
	return stats
}

func (h *harness) machine() vm.Machine {
	h.t.Helper()
	id := uuid.NewString()
	return vm.Machine{
		ID: id, Dir: filepath.Join(h.dir, "vms", id), CPUs: 2, Memory: 256, Network: vm.NAT,
		Annotation: "osx-builder https://example.com/a.tar.gz sha256 00ff",
	}
}

// running returns a running machine.
func (h *harness) running(d *vix.Driver) vm.Machine {
	h.t.Helper()
	m := h.machine()
	must(h.t, d.Clone(h.t.Context(), m, h.gold))
	must(h.t, d.Start(h.t.Context(), m))
	return m
}

// checkGone checks that nothing of the machine is left.
func (h *harness) checkGone(d *vix.Driver, m vm.Machine) {
	h.t.Helper()
	if _, err := os.Stat(m.Dir); err == nil {
		h.t.Errorf("the folder of %s is left", m.ID)
	}
	if st, err := d.Inspect(h.t.Context(), m); err != nil || st.Power != "" {
		h.t.Errorf("Inspect after Destroy: got %+v, %v, want the zero Status", st, err)
	}
}

// waitUntil polls until the condition is true.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("this does not become true: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// read returns the text of the files that the pattern matches.
func read(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	must(t, err)
	var all strings.Builder
	for _, name := range names {
		data, err := os.ReadFile(name)
		must(t, err)
		all.Write(data)
	}
	return all.String()
}

// tree lists the files below dir with their modes, sizes and times.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			files[path] = fmt.Sprint(info.Mode(), info.ModTime(), info.Size())
		}
		return err
	}))
	return files
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
