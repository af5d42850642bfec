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
)

// double is the path of the double of VMware's library, built by TestMain.
var double string

func TestMain(m *testing.M) {
	if path, ok := os.LookupEnv("OSXB_TEST_OPEN"); ok {
		openAndTell(path)
		return
	}
	if path, ok := os.LookupEnv("OSXB_TEST_SIGNALS"); ok {
		openAndFault(path)
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

// build makes a shared library of C sources: of the double's where none are given.
func build(path string, sources ...string) ([]byte, error) {
	return exec.Command("testdata/libvix/build.sh", append([]string{path}, sources...)...).CombinedOutput()
}

// bench is a driver over the double, an image, and the double's controls.
type bench struct {
	t       *testing.T
	dir     string
	control string
	gold    string
	log     bytes.Buffer
	options vix.Options
}

// deadlines are short enough for a test to see them pass.
var deadlines = vix.Deadlines{
	Connect: 5 * time.Second, Look: 5 * time.Second, Clone: 5 * time.Second, Start: 5 * time.Second,
	Stop: 5 * time.Second, Locks: 5 * time.Second, Tools: time.Second,
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

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	b.control = filepath.Join(b.dir, "control")
	must(t, os.Mkdir(b.control, 0o755))
	t.Setenv("OSXB_VIX_DOUBLE", b.control)
	b.gold = b.image("gold", goldVMX)
	b.options = vix.Options{
		Gold: b.dir, Dir: filepath.Join(b.dir, "bases"), Library: double, Deadlines: deadlines,
		Log: slog.New(slog.NewTextHandler(&b.log, nil)), Leases: map[vm.NetworkType]string{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the driver's log:\n%s", b.log.String())
		}
	})
	return b
}

// image makes an unpacked image, read-only as the image cache leaves it.
func (b *bench) image(name, vmx string) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, name)
	must(b.t, os.Mkdir(dir, 0o755))
	for file, content := range map[string]string{
		"gold.vmx": vmx, "gold.nvram": "settings", "vmware.log": "noise",
		"disk.vmdk": "a disk of one file" + strings.Repeat("\x00", 2<<20),
	} {
		must(b.t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o444))
	}
	must(b.t, os.Chmod(dir, 0o555))
	b.t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	return filepath.Join(dir, "gold.vmx")
}

// open opens a driver. It is closed with the test, and holds nothing then.
func (b *bench) open() *vix.Driver {
	b.t.Helper()
	d, err := vix.Open(b.options)
	must(b.t, err)
	b.t.Cleanup(func() {
		b.clear()
		must(b.t, d.Close())
	})
	return d
}

// set writes a file of the double's control folder.
func (b *bench) set(name string, content any) {
	b.t.Helper()
	path := filepath.Join(b.control, name)
	must(b.t, os.WriteFile(path+".new", []byte(fmt.Sprint(content)), 0o644))
	must(b.t, os.Rename(path+".new", path))
}

// clear removes all errors and hangs.
func (b *bench) clear() {
	b.t.Helper()
	for _, kind := range []string{"error.*", "hang.*"} {
		names, err := filepath.Glob(filepath.Join(b.control, kind))
		must(b.t, err)
		for _, name := range names {
			must(b.t, os.Remove(name))
		}
	}
}

// stats reads the double's counters.
func (b *bench) stats() map[string]int {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.control, "stats"))
	must(b.t, err)
	stats := make(map[string]int)
	for line := range strings.Lines(string(data)) {
		if name, n, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			stats[name], err = strconv.Atoi(n)
			must(b.t, err)
		}
	}
	return stats
}

func (b *bench) machine() vm.Machine {
	b.t.Helper()
	id := uuid.NewString()
	return vm.Machine{
		ID: id, Dir: filepath.Join(b.dir, "vms", id), CPUs: 2, Memory: 256, Network: vm.NAT,
		Annotation: "osx-builder https://example.com/a.tar.gz sha256 00ff",
	}
}

// running returns a machine that runs.
func (b *bench) running(d *vix.Driver) vm.Machine {
	b.t.Helper()
	m := b.machine()
	must(b.t, d.Clone(b.t.Context(), m, b.gold))
	must(b.t, d.Start(b.t.Context(), m))
	return m
}

// gone checks that nothing of the machine is left.
func (b *bench) gone(d *vix.Driver, m vm.Machine) {
	b.t.Helper()
	if _, err := os.Stat(m.Dir); err == nil {
		b.t.Errorf("the folder of %s is left", m.ID)
	}
	if st, err := d.Inspect(b.t.Context(), m); err != nil || st.Power != "" {
		b.t.Errorf("Inspect after Destroy: got %+v, %v, want the zero Status", st, err)
	}
}

// until polls for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("after 10 s: not %s", what)
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
