//go:build !windows

package vmrun_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"osx-builder/vm"
	"osx-builder/vm/vmrun"
	"osx-builder/vm/vmware"
)

const goldVMX = `.encoding = "UTF-8"
config.version = "8"
guestOS = "debian11-64"
displayName = "gold"
memsize = "4096"
numvcpus = "8"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "disk.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "e1000"
`

// harness has what a driver needs to run with the double of vmrun: an image, and the double's control folder.
type harness struct {
	t       *testing.T
	dir     string
	control string
	gold    string
	log     bytes.Buffer
	options vmrun.Options
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{t: t, dir: t.TempDir()}
	h.control = filepath.Join(h.dir, "control")
	must(t, os.Mkdir(h.control, 0o755))
	t.Setenv("OSXB_VMRUN_DOUBLE", h.control)
	t.Setenv("DISPLAY", "")
	image := filepath.Join(h.dir, "gold", "image")
	must(t, os.MkdirAll(image, 0o755))
	h.gold = filepath.Join(image, "gold.vmx")
	must(t, os.WriteFile(h.gold, []byte(goldVMX), 0o444))
	must(t, os.WriteFile(filepath.Join(image, "disk.vmdk"), []byte("a disk"+strings.Repeat("\x00", 2<<20)), 0o444))
	program, err := filepath.Abs("testdata/vmrun")
	must(t, err)
	limit := time.Minute // the double is slow on a busy host
	h.options = vmrun.Options{
		Gold: filepath.Join(h.dir, "gold"), Dir: filepath.Join(h.dir, "bases"), Program: program, Leases: vmware.Leases{},
		Log: slog.New(slog.NewTextHandler(&h.log, nil)),
		Deadlines: vmware.Deadlines{
			Connect: limit, Read: limit, Clone: limit, Start: limit, Stop: limit, Unlock: limit, Tools: limit,
		},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the driver's log:\n%s", h.log.String())
		}
	})
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a driver, which is closed when the test ends.
func (h *harness) open() *vmrun.Driver {
	h.t.Helper()
	d, err := vmrun.Open(h.options)
	must(h.t, err)
	h.t.Cleanup(func() { must(h.t, d.Close()) })
	return d
}

// set writes a file of the control folder.
func (h *harness) set(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.control, name)
	must(h.t, os.WriteFile(path+".new", []byte(content), 0o644))
	must(h.t, os.Rename(path+".new", path))
}

func (h *harness) clear(name string) {
	h.t.Helper()
	must(h.t, os.Remove(filepath.Join(h.control, name)))
}

func (h *harness) machine() vm.Machine {
	id := uuid.NewString()
	return vm.Machine{ID: id, Dir: filepath.Join(h.dir, "vms", id), CPUs: 2, Memory: 256, Network: vm.NAT}
}

func (h *harness) running(d *vmrun.Driver) vm.Machine {
	h.t.Helper()
	m := h.machine()
	must(h.t, d.Clone(h.t.Context(), m, h.gold))
	must(h.t, d.Start(h.t.Context(), m))
	return m
}

// checkGone checks that nothing of the machine is left.
func (h *harness) checkGone(d *vmrun.Driver, m vm.Machine) {
	h.t.Helper()
	if _, err := os.Stat(m.Dir); err == nil {
		h.t.Errorf("the folder of %s is left", m.ID)
	}
	if st, err := d.Inspect(h.t.Context(), m); err != nil || st.Power != "" {
		h.t.Errorf("Inspect after Destroy: got %+v, %v, want the zero Status", st, err)
	}
	left, err := filepath.Glob(filepath.Join(h.control, "running", "*"))
	must(h.t, err)
	if len(left) != 0 {
		h.t.Errorf("machines run: %q", left)
	}
}

// waitUntil polls until the condition is true.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("this does not become true: %s", what)
		}
	}
}

// calls returns the calls of a command of vmrun that the double has seen.
func (h *harness) calls(command string) (all []string) {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.control, "log"))
	must(h.t, err)
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, command+" ") || strings.TrimSpace(line) == command {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

func (h *harness) fail(command, text string, times int) {
	h.set("error."+command, fmt.Sprintf("%s\n%d\n", text, times))
}
