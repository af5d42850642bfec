package qemu_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(startOnly) != "" {
		os.Exit(startAndWait())
	}
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue {
		// These tests wait for guests more than they compute.
		if err := n.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// Boot sectors: all a guest needs for tests of its host.
var (
	// idleGuest writes OK to the first serial port and halts for ever.
	idleGuest = []byte{0xfa, 0xba, 0xf8, 0x03, 0xb0, 'O', 0xee, 0xb0, 'K', 0xee, 0xb0, '\n', 0xee, 0xfb, 0xf4, 0xeb, 0xfd}

	// powerOffGuest uses the ACPI port of QEMU's pc to power the machine off.
	powerOffGuest = []byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4}
)

// without skips the test for want of something, but never in CI.
func without(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// needQEMU skips the test on a host without QEMU, but never in CI.
func needQEMU(t *testing.T) {
	t.Helper()
	for _, name := range []string{"qemu-system-x86_64", "qemu-img"} {
		if _, err := exec.LookPath(name); err != nil {
			without(t, fmt.Sprintf("this test runs real machines: %v", err))
		}
	}
}

// testDriver is a driver with a data folder of its own.
type testDriver struct {
	*qemu.Driver
	t    *testing.T
	data string
}

func newTestDriver(t *testing.T) *testDriver {
	t.Helper()
	needQEMU(t)
	// Not t.TempDir: its paths are too long for the sockets in them.
	data, err := os.MkdirTemp("/tmp", "osxb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) })
	o := options(data)
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	d, err := openDriver(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &testDriver{d, t, data}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("closing the driver: %v", err)
		}
	})
	return r
}

// with returns the test driver for a subtest.
func (r *testDriver) with(t *testing.T) *testDriver { return &testDriver{r.Driver, t, r.data} }

func options(data string) qemu.Options {
	return qemu.Options{Dir: data, MachinesDir: filepath.Join(data, "vms"), Network: "user", Forward: []int{80}}
}

// image makes an unpacked image that boots from code and returns its .vmx.
// Each of lines is a further line of that.
func (r *testDriver) image(code []byte, lines ...string) string {
	r.t.Helper()
	dir := filepath.Join(r.data, "gold "+uuid.NewString()[:8], "my, image")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	sector := append(bytes.Clone(code), make([]byte, 1<<20-len(code))...)
	binary.LittleEndian.PutUint16(sector[510:], 0xaa55)
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, sector, 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, filepath.Join(dir, "disk.vmdk"))
	if err := os.Remove(raw); err != nil {
		r.t.Fatal(err)
	}
	text := strings.Join(append([]string{
		`.encoding = "UTF-8"`, `config.version = "8"`, `virtualHW.version = "19"`, `guestOS = "debian12-64"`,
	}, lines...), "\n") + "\n"
	gold := filepath.Join(dir, "machine.vmx")
	if err := os.WriteFile(gold, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return gold
}

// plain are the lines of a machine with one disk on pvscsi and a vmxnet3.
var plain = []string{
	`scsi0.present = "TRUE"`, `scsi0.virtualDev = "pvscsi"`,
	`scsi0:0.present = "TRUE"`, `scsi0:0.fileName = "disk.vmdk"`,
	`ethernet0.present = "TRUE"`, `ethernet0.virtualDev = "vmxnet3"`,
}

func (r *testDriver) run(name string, args ...string) {
	r.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		r.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// machine returns a machine that is destroyed with the test.
func (r *testDriver) machine() vm.Machine {
	r.t.Helper()
	id := uuid.NewString()
	m := vm.Machine{ID: id, Dir: filepath.Join(r.data, "vms", id), CPUs: 2, Memory: 64, Network: vm.NAT}
	r.t.Cleanup(func() {
		if r.t.Failed() {
			vmtest.ShowLogs(r.t, m)
		}
		if err := r.Destroy(context.Background(), m); err != nil {
			r.t.Errorf("destroying what the test left: %v", err)
		}
	})
	return m
}

func (r *testDriver) clone(m vm.Machine, gold string) {
	r.t.Helper()
	if err := r.Clone(r.t.Context(), m, gold); err != nil {
		r.t.Fatalf("Clone: %v", err)
	}
}

func (r *testDriver) start(m vm.Machine) {
	r.t.Helper()
	if err := r.Start(r.t.Context(), m); err != nil {
		r.t.Fatalf("Start: %v", err)
	}
}

func (r *testDriver) inspect(m vm.Machine) vm.Status {
	r.t.Helper()
	st, err := r.Inspect(r.t.Context(), m)
	if err != nil {
		r.t.Fatalf("Inspect: %v", err)
	}
	return st
}

// running makes a machine that runs.
func (r *testDriver) running(code []byte) vm.Machine {
	r.t.Helper()
	m := r.machine()
	r.clone(m, r.image(code, plain...))
	r.start(m)
	return m
}

// until waits for done at most limit.
func until(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.After(limit)
	const seldom = 100 * time.Millisecond // a look at a machine takes its guest's agent processor time
	for pause := 20 * time.Millisecond; !done(); pause = min(pause*5/4, seldom) {
		select {
		case <-deadline:
			t.Fatalf("%v passed without %s", limit, what)
		case <-time.After(pause):
		}
	}
}

// pidOf returns the number in the machine's pid file.
func pidOf(t *testing.T, m vm.Machine) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// processes counts those with the machine's id in their command line.
func processes(t *testing.T, m vm.Machine) int {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-ww", "-o", "args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(out), "guest=osxb-"+m.ID)
}

// wantCode checks that err is an *vm.Error of the code whose message has each
// of the words.
func wantCode(t *testing.T, err error, code vm.Code, words ...string) {
	t.Helper()
	var e *vm.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *vm.Error of code %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("got code %s (%v), want %s", e.Code, err, code)
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			t.Errorf("got message %q, want %q in it", e.Message, word)
		}
	}
}

func serial(m vm.Machine) string {
	text, err := os.ReadFile(filepath.Join(m.Dir, "serial.log"))
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(text)
}
