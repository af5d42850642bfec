package harness

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// Harness is a running daemon and a web server that serves its images and
// receives its callbacks. At the end of the test it destroys all machines, and
// the test fails if something is left of them.
type Harness struct {
	*e2e.Daemon
	T    *testing.T
	Site *e2e.Site
	Args []string // the daemon's flags
	Env  []string // the daemon's environment; nil means this process's

	Program string // the daemon's path

	previousLogs *[]string // of the daemons before this one
}

// New starts a daemon with these flags. Its driver is QEMU unless a flag sets
// another one.
func New(t *testing.T, args ...string) *Harness {
	t.Helper()
	return NewEnv(t, nil, args...)
}

// NewEnv is [New] with an environment for the daemon.
func NewEnv(t *testing.T, env []string, args ...string) *Harness {
	t.Helper()
	return NewProgram(t, Binary(t), env, args...)
}

// NewProgram is [NewEnv] with another program than [Binary].
func NewProgram(t *testing.T, program string, env []string, args ...string) *Harness {
	t.Helper()
	h := NewStopped(t, env, args...)
	h.Program = program
	h.Start()
	return h
}

// NewStopped returns a harness whose daemon is not started yet.
func NewStopped(t *testing.T, env []string, args ...string) *Harness {
	t.Helper()
	data := DataDir(t)
	h := &Harness{
		T: t, Site: e2e.NewSite(BuildDir(t)), Args: append([]string{"-driver", "qemu"}, args...), Env: env,
		Program: Binary(t), Daemon: &e2e.Daemon{Data: data}, previousLogs: new([]string),
	}
	t.Cleanup(func() {
		diagnostics := ""
		if t.Failed() {
			diagnostics = Diagnostics(h.Data) // before Shutdown removes the machines
		}
		h.Shutdown()
		if left := e2e.Leftovers(data); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, ", "))
		}
		logs := strings.Join(append(*h.previousLogs, h.Log()), "\n--- the daemon was started again ---\n")
		if strings.Contains(logs, "DATA RACE") || t.Failed() {
			t.Errorf("%s\nthe daemon's log:\n%s", diagnostics, logs)
		}
		h.Site.Close()
	})
	return h
}

// Start starts the daemon. A daemon that is started again has the same data.
func (h *Harness) Start() {
	h.T.Helper()
	if log := h.Log(); log != "" {
		*h.previousLogs = append(*h.previousLogs, log)
	}
	d, err := e2e.Start(e2e.Options{Binary: h.Program, Data: h.Data, Args: h.Args, Env: h.Env})
	if err != nil {
		h.T.Fatalf("%v\nthe logs of the previous daemons:\n%s", err, strings.Join(*h.previousLogs, "\n"))
	}
	h.Daemon = d
}

// WithT returns a copy of the harness for a subtest.
func (h *Harness) WithT(t *testing.T) *Harness {
	sub := *h
	sub.T = t
	return &sub
}

// Shutdown destroys all machines and stops the daemon.
func (h *Harness) Shutdown() {
	a, err := h.Do("GET", "/vms", "", nil)
	if err != nil {
		return // the test stopped the daemon
	}
	var list struct{ VMs []vm.VM } // empty if the daemon requires a token; then the test destroys its machines
	Must(h.T, a.JSON(&list))
	for _, v := range list.VMs {
		a, err := h.Do("DELETE", "/vms/"+v.ID, "", nil)
		if err != nil || a.Status != http.StatusNoContent && a.Status != http.StatusNotFound { // its deletion may have been under way
			h.T.Errorf("DELETE /vms/%s: got %d %s, %v, want 204", v.ID, a.Status, a.Body, err)
		}
	}
	h.waitForCallbacks()
	Must(h.T, h.Stop())
}

// waitForCallbacks waits until the destroyed machines have sent their callbacks,
// whose tombstones would otherwise look like leftovers.
func (h *Harness) waitForCallbacks() {
	for deadline := time.Now().Add(Timeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		entries, err := os.ReadDir(filepath.Join(h.Data, "vms"))
		tombstone := func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".tombstone.json") }
		if err != nil || !slices.ContainsFunc(entries, tombstone) {
			return
		}
	}
}

// Diagnostics returns the end of each file that can explain a failure, for all
// machines of a data folder: the record, QEMU's log and exit status, and the
// guest's console.
func Diagnostics(data string) string {
	var text strings.Builder
	records, _ := filepath.Glob(filepath.Join(data, "vms", "*.json"))
	for _, record := range records {
		for _, name := range append([]string{record}, diagnosticFiles(strings.TrimSuffix(record, ".json"))...) {
			if b, err := os.ReadFile(name); err == nil {
				b = b[max(0, len(b)-4<<10):]
				name = strings.TrimPrefix(name, data)
				fmt.Fprintf(&text, "--- the end of %s:\n%s\n", name, strings.ToValidUTF8(string(b), "?"))
			}
		}
	}
	return text.String()
}

// diagnosticFiles lists the files of a machine's folder that can explain a
// failure.
func diagnosticFiles(dir string) (files []string) {
	for _, name := range []string{"qemu.log", "ended", "exit", "serial.log"} {
		files = append(files, filepath.Join(dir, name))
	}
	return files
}

// MountSmallDisk restarts the daemon with an empty data folder on a separate
// disk. The size is one such as "128m". It needs root.
func (h *Harness) MountSmallDisk(size string) {
	h.T.Helper()
	Must(h.T, h.Stop())
	if os.Geteuid() != 0 {
		Without(h.T, "this test mounts a tmpfs and needs root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", h.Data).CombinedOutput(); err != nil {
		h.T.Fatalf("mounting a tmpfs: %v: %s", err, out)
	}
	h.T.Cleanup(func() {
		h.Shutdown()
		if out, err := exec.Command("umount", h.Data).CombinedOutput(); err != nil {
			h.T.Errorf("unmounting: %v: %s", err, out)
		}
	})
	h.Start()
}
