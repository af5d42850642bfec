package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// Create creates a machine and returns the document of the answer.
func (h *Harness) Create(body []byte) vm.VM {
	h.T.Helper()
	v, _, err := h.VM("POST", "/vms", body, http.StatusAccepted)
	Must(h.T, err)
	return v
}

// WaitSettled waits until the machine is ready or failed.
func (h *Harness) WaitSettled(id string) vm.VM {
	h.T.Helper()
	v, _, err := h.VM("GET", "/vms/"+id+"?wait="+Timeout.String(), nil, http.StatusOK)
	Must(h.T, err)
	return v
}

// WaitReady waits until the machine is ready, and checks that it runs.
func (h *Harness) WaitReady(id string) vm.VM {
	h.T.Helper()
	v := h.WaitSettled(id)
	if v.Phase != vm.Ready || v.Status != vm.PoweredOn {
		h.T.Fatalf("got phase %s, status %s, error %+v, want ready and powered-on", v.Phase, v.Status, v.Error)
	}
	return v
}

// Get returns the machine.
func (h *Harness) Get(id string) vm.VM {
	h.T.Helper()
	v, _, err := h.VM("GET", "/vms/"+id, nil, http.StatusOK)
	Must(h.T, err)
	return v
}

// WaitUntil polls the machine until ok returns true. The failure's message
// contains what.
func (h *Harness) WaitUntil(id, what string, ok func(vm.VM) bool) vm.VM {
	h.T.Helper()
	var v vm.VM
	for deadline := time.Now().Add(Timeout); time.Now().Before(deadline); {
		if v = h.Get(id); ok(v) {
			return v
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.T.Fatalf("the machine is not %s within %v: %+v", what, Timeout, v)
	return v
}

// WalkPower suspends and resumes the machine, and switches it off and on. After each it waits for the power state.
func (h *Harness) WalkPower(id string) {
	h.T.Helper()
	for _, step := range []struct {
		action string
		want   vm.Power
	}{{"suspend", vm.Suspended}, {"resume", vm.PoweredOn}, {"off", vm.PoweredOff}, {"on", vm.PoweredOn}} {
		_, _, err := h.VM("POST", "/vms/"+id+"/power", []byte(`{"action":"`+step.action+`"}`), http.StatusOK)
		Must(h.T, err)
		h.WaitUntil(id, string(step.want), func(v vm.VM) bool { return v.Status == step.want })
	}
}

// Destroy destroys the machine.
func (h *Harness) Destroy(id string) {
	h.T.Helper()
	_, _, err := h.VM("DELETE", "/vms/"+id, nil, http.StatusNoContent)
	Must(h.T, err)
}

// GuestPage returns what the guest's web page says about the guest.
func (h *Harness) GuestPage(v vm.VM) map[string]string {
	h.T.Helper()
	page, err := e2e.GuestPage(v, "/", Timeout)
	Must(h.T, err)
	return page
}

// ReadMark returns the mark on the guest's disk.
func (h *Harness) ReadMark(v vm.VM) string {
	h.T.Helper()
	return h.mark(v, "")
}

// WriteMark writes a mark to the guest's disk and returns the mark that the
// guest read back.
func (h *Harness) WriteMark(v vm.VM, mark string) string {
	h.T.Helper()
	return h.mark(v, "?value="+mark)
}

func (h *Harness) mark(v vm.VM, query string) string {
	h.T.Helper()
	res, err := http.Get(e2e.GuestURL(v, "/cgi-bin/mark"+query))
	Must(h.T, err)
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	Must(h.T, err)
	return strings.TrimSpace(b.String())
}

// NextCallback returns the document of the next callback.
func (h *Harness) NextCallback() (v vm.VM) {
	h.T.Helper()
	select {
	case c := <-h.Site.Callbacks:
		Must(h.T, json.Unmarshal(c.Body, &v))
	case <-time.After(Timeout):
		h.T.Fatalf("no callback within %v", Timeout)
	}
	return v
}

// Templates lists the templates of starts from memory.
func (h *Harness) Templates() []vm.Template {
	h.T.Helper()
	a, err := h.Do("GET", "/templates", "", nil)
	Must(h.T, err)
	var list struct{ Templates []vm.Template }
	Must(h.T, a.JSON(&list))
	return list.Templates
}

// QEMUCount returns the number of QEMU processes of the data folder.
func (h *Harness) QEMUCount() (n int) {
	for _, leftover := range e2e.Leftovers(h.Data) {
		if strings.Contains(leftover, "qemu") {
			n++
		}
	}
	return n
}

// QEMUPID returns the process ID of the machine's QEMU.
func (h *Harness) QEMUPID(id string) int {
	h.T.Helper()
	b, err := os.ReadFile(filepath.Join(h.Data, "vms", id, "pid"))
	Must(h.T, err)
	var pid int
	_, err = fmt.Sscan(string(b), &pid)
	Must(h.T, err)
	return pid
}

// ProgramDir returns a folder for programs that stand for QEMU or its tools. Their users, which are others than the
// daemon's if that is root, can execute what is in it.
func ProgramDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "osxb")
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	Must(t, os.Chmod(dir, 0o755))
	return dir
}

// HasProcess reports whether a process has all these words in its command line.
func HasProcess(words ...string) bool {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	return slices.ContainsFunc(lines, func(path string) bool {
		line, err := os.ReadFile(path)
		return err == nil && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(string(line), w) })
	})
}
