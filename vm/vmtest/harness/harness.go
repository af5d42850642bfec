package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// Harness is a running daemon and a web site that serves its images and
// receives its callbacks. When the test ends, the machines are destroyed, and
// whatever is left of them fails the test.
type Harness struct {
	*e2e.Daemon
	T    *testing.T
	Site *e2e.Site
	Args []string // the daemon's flags
	Env  []string // the daemon's environment; nil means this process's

	Program string // the daemon's path

	ended *[]string // the logs of earlier daemons
}

// New starts a daemon. It drives QEMU, unless the flags say otherwise.
func New(t *testing.T, args ...string) *Harness {
	t.Helper()
	return NewEnv(t, nil, args...)
}

// NewEnv is New with an environment for the daemon.
func NewEnv(t *testing.T, env []string, args ...string) *Harness {
	t.Helper()
	return NewOf(t, Binary(t), env, args...)
}

// NewOf is NewEnv with another program.
func NewOf(t *testing.T, program string, env []string, args ...string) *Harness {
	t.Helper()
	h := Stopped(t, env, args...)
	h.Program = program
	h.Start()
	return h
}

// Stopped returns a harness whose daemon does not run yet.
func Stopped(t *testing.T, env []string, args ...string) *Harness {
	t.Helper()
	data, err := os.MkdirTemp("", "osxb") // short: sockets will be in it
	Must(t, err)
	h := &Harness{
		T: t, Site: e2e.NewSite(BuildDir(t)), Args: append([]string{"-driver", "qemu"}, args...), Env: env,
		Program: Binary(t), Daemon: &e2e.Daemon{Data: data}, ended: new([]string),
	}
	t.Cleanup(func() {
		evidence := ""
		if t.Failed() {
			evidence = Evidence(h.Data) // before it is removed
		}
		h.Clear()
		if left := e2e.Leftovers(data); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, ", "))
		}
		logs := strings.Join(append(*h.ended, h.Log()), "\n--- the daemon was started again ---\n")
		if strings.Contains(logs, "DATA RACE") || t.Failed() {
			t.Errorf("%s\nthe daemon's log:\n%s", evidence, logs)
		}
		h.Site.Close()
		MakeWritable(data)
		Must(t, os.RemoveAll(data))
	})
	return h
}

// Start starts the daemon, or the next one on the same data.
func (h *Harness) Start() {
	h.T.Helper()
	if log := h.Log(); log != "" {
		*h.ended = append(*h.ended, log)
	}
	d, err := e2e.Start(e2e.Options{Binary: h.Program, Data: h.Data, Args: h.Args, Env: h.Env})
	if err != nil {
		h.T.Fatalf("%v\nthe logs of the daemons before:\n%s", err, strings.Join(*h.ended, "\n"))
	}
	h.Daemon = d
}

// In returns the harness as a subtest uses it.
func (h *Harness) In(t *testing.T) *Harness {
	sub := *h
	sub.T = t
	return &sub
}

// Clear destroys all machines and stops the daemon.
func (h *Harness) Clear() {
	a, err := h.Do("GET", "/vms", "", nil)
	if err != nil {
		return // the test stopped it
	}
	var list struct{ VMs []vm.VM }
	Must(h.T, a.JSON(&list))
	for _, v := range list.VMs {
		h.Destroy(v.ID)
	}
	Must(h.T, h.Stop())
}

// Evidence returns what the machines' folders in a data folder say about a
// failure: the record, what QEMU said and how it ended, and the guest's console.
func Evidence(data string) string {
	var text strings.Builder
	records, _ := filepath.Glob(filepath.Join(data, "vms", "*.json"))
	for _, record := range records {
		for _, name := range append([]string{record}, evidenceIn(strings.TrimSuffix(record, ".json"))...) {
			if b, err := os.ReadFile(name); err == nil {
				b = b[max(0, len(b)-4<<10):]
				fmt.Fprintf(&text, "--- %s, its end:\n%s\n", strings.TrimPrefix(name, data), strings.ToValidUTF8(string(b), "?"))
			}
		}
	}
	return text.String()
}

// evidenceIn lists the files in a machine's folder that explain its end.
func evidenceIn(dir string) (files []string) {
	for _, name := range []string{"qemu.log", "ended", "exit", "serial.log"} {
		files = append(files, filepath.Join(dir, name))
	}
	return files
}

// SmallDisk moves the daemon to a data folder on a disk of its own, of a size
// such as "128m". It needs root.
func (h *Harness) SmallDisk(size string) {
	h.T.Helper()
	Must(h.T, h.Stop())
	if os.Geteuid() != 0 {
		Without(h.T, "this test mounts a tmpfs and needs root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", h.Data).CombinedOutput(); err != nil {
		h.T.Fatalf("mounting a tmpfs: %v: %s", err, out)
	}
	h.T.Cleanup(func() {
		h.Clear()
		if out, err := exec.Command("umount", h.Data).CombinedOutput(); err != nil {
			h.T.Errorf("unmounting: %v: %s", err, out)
		}
	})
	h.Start()
}
