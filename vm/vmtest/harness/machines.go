package harness

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// Create asks for a machine.
func (h *Harness) Create(body []byte) vm.VM {
	h.T.Helper()
	v, _, err := h.VM("POST", "/vms", body, http.StatusAccepted)
	Must(h.T, err)
	return v
}

// Settled waits until the machine is ready or failed.
func (h *Harness) Settled(id string) vm.VM {
	h.T.Helper()
	v, _, err := h.VM("GET", "/vms/"+id+"?wait="+Patience.String(), nil, http.StatusOK)
	Must(h.T, err)
	return v
}

// Ready waits until the machine is ready and runs.
func (h *Harness) Ready(id string) vm.VM {
	h.T.Helper()
	v := h.Settled(id)
	if v.Phase != vm.Ready || v.Status != vm.PoweredOn {
		h.T.Fatalf("got phase %s, status %s, error %+v, want ready and powered-on", v.Phase, v.Status, v.Error)
	}
	return v
}

// Get reads the machine.
func (h *Harness) Get(id string) vm.VM {
	h.T.Helper()
	v, _, err := h.VM("GET", "/vms/"+id, nil, http.StatusOK)
	Must(h.T, err)
	return v
}

// Until reads the machine again and again until ok returns true. What says, for
// the failure, what was waited for.
func (h *Harness) Until(id, what string, ok func(vm.VM) bool) vm.VM {
	h.T.Helper()
	var v vm.VM
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); {
		if v = h.Get(id); ok(v) {
			return v
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.T.Fatalf("not %s within %v: %+v", what, Patience, v)
	return v
}

// Destroy destroys the machine.
func (h *Harness) Destroy(id string) {
	h.T.Helper()
	_, _, err := h.VM("DELETE", "/vms/"+id, nil, http.StatusNoContent)
	Must(h.T, err)
}

// Page is the guest's own view of itself.
func (h *Harness) Page(v vm.VM) map[string]string {
	h.T.Helper()
	page, err := e2e.Page(v, "/", Patience)
	Must(h.T, err)
	return page
}

// Mark reads the mark on the guest's disk, or writes it if value is not empty.
func (h *Harness) Mark(v vm.VM, value string) string {
	h.T.Helper()
	url := e2e.GuestURL(v, "/cgi-bin/mark")
	if value != "" {
		url += "?value=" + value
	}
	res, err := http.Get(url)
	Must(h.T, err)
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	Must(h.T, err)
	return strings.TrimSpace(b.String())
}

// Callback returns the next callback's document.
func (h *Harness) Callback() (v vm.VM) {
	h.T.Helper()
	select {
	case c := <-h.Site.Callbacks:
		Must(h.T, json.Unmarshal(c.Body, &v))
	case <-time.After(Patience):
		h.T.Fatalf("no callback within %v", Patience)
	}
	return v
}

// Machines counts the QEMU processes that run from the data folder.
func (h *Harness) Machines() (n int) {
	for _, trace := range e2e.Leftovers(h.Data) {
		if strings.Contains(trace, "qemu") {
			n++
		}
	}
	return n
}

// QEMU returns the process ID of the machine's QEMU.
func (h *Harness) QEMU(id string) int {
	h.T.Helper()
	b, err := os.ReadFile(filepath.Join(h.Data, "vms", id, "pid"))
	Must(h.T, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	Must(h.T, err)
	return pid
}
