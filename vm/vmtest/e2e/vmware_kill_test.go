package e2e_test

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// A call of VMware that hangs does not keep the daemon from ending by itself, and the next daemon continues.
func TestVMwareStopWhileCallHangs(t *testing.T) {
	t.Parallel()
	w := newVMware(t)
	w.set("hang.VixVM_PowerOn", "/")
	v := w.Create(w.Image(harness.TinyVM).Body(harness.SmallVM(nil)))
	w.WaitUntil(v.ID, "starting", func(vm.VM) bool { return w.stats()["calls"] == "1" })
	stopGracefully(w.Harness)
	w.set("hang.VixVM_PowerOn", "")
	w.Start()
	w.WaitReady(v.ID)
	w.Destroy(v.ID)
}

// Machines are created and destroyed, eight at once, while VMware answers after random times and is sometimes busy, and
// while the daemon is killed. None is stuck or left, and VMware's library has no handle when the daemon ends.
// VMWARE_MACHINES and VMWARE_KILLS set the numbers.
func TestVMwareKills(t *testing.T) {
	t.Parallel()
	machines, kills := harness.EnvInt(t, "VMWARE_MACHINES", 16), harness.EnvInt(t, "VMWARE_KILLS", 2)
	w := newVMware(t)
	for name, content := range map[string]string{"random.ms": "50", "busy.percent": "4", "tools.ms": "20", "ip.ms": "20"} {
		w.set(name, content)
	}
	i := w.Image(harness.TinyVM)
	d := &killedDaemon{vmware: w}
	var wg sync.WaitGroup
	next := make(chan int)
	failed := make(chan vm.Code, machines)
	for range 8 {
		wg.Go(func() {
			for n := range next {
				if code := d.life(i, n); code != "" {
					failed <- code
				}
			}
		})
	}
	for n := range machines {
		next <- n
		if (n+1)*kills/machines > n*kills/machines {
			d.kill()
		}
	}
	close(next)
	wg.Wait()
	close(failed)
	for code := range failed {
		if code != vm.CodeAttempts { // killed three times during one creation
			t.Errorf("a creation failed with %s", code)
		}
	}
	if vms, err := w.List(); err != nil || len(vms) != 0 {
		t.Errorf("at the end: got %v, %v, want no machine", vms, err)
	}
	left, err := filepath.Glob(filepath.Join(w.Data, "vms", "*"))
	harness.Must(t, err)
	if len(left) != 0 {
		t.Errorf("files are left: %q", left)
	}
	stopGracefully(w.Harness)
	stats := w.stats()
	t.Logf("%d machines, %d kills, %d creations given up, counters at the end: %v", machines, kills, len(failed), stats)
	for _, name := range []string{"host", "vm", "job", "snapshot", "proplist", "dead_release", "dead_call", "endless", "bad_delete", "orphan"} {
		if stats[name] != "0" {
			t.Errorf("%s: got %s at the end, want 0", name, stats[name])
		}
	}
}

// killedDaemon is a daemon that is killed while requests are sent to it.
type killedDaemon struct {
	*vmware
	mu sync.RWMutex // held for writing while no daemon runs
}

// kill kills the daemon and starts it again.
func (d *killedDaemon) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	harness.Must(d.T, d.Kill())
	d.Start()
}

// request sends a request until it gets a response.
func (d *killedDaemon) request(method, path, key string, body []byte) (e2e.Response, error) {
	for {
		d.mu.RLock()
		current := d.Daemon
		d.mu.RUnlock()
		req, err := http.NewRequestWithContext(d.T.Context(), method, current.URL+path, bytes.NewReader(body))
		harness.Must(d.T, err)
		req.Header.Set("Content-Type", "application/json")
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		a, err := current.Send(req)
		if err == nil {
			return a, nil
		}
		d.mu.RLock()
		replaced := d.Daemon != current
		d.mu.RUnlock()
		if !replaced {
			select {
			case <-d.T.Context().Done():
				return a, err
			case <-time.After(50 * time.Millisecond): // until the daemon is started again
			}
		}
	}
}

// life creates a machine, waits for it and destroys it. It returns the code with which the creation failed, or "".
func (d *killedDaemon) life(i e2e.Image, n int) vm.Code {
	var v vm.VM
	a, err := d.request("POST", "/vms", fmt.Sprint("machine ", n), i.Body(harness.SmallVM(nil)))
	if err == nil {
		err = a.JSON(&v)
	}
	if err != nil || a.Status != http.StatusAccepted && a.Status != http.StatusOK {
		d.T.Errorf("POST: got %d %s, %v, want 202", a.Status, a.Body, err)
		return ""
	}
	deadline := time.Now().Add(harness.Timeout)
	for v.Phase != vm.Ready && v.Phase != vm.Failed {
		if time.Now().After(deadline) {
			d.T.Errorf("machine %s is stuck: %+v", v.ID, v)
			return ""
		}
		a, err := d.request("GET", "/vms/"+v.ID+"?wait=5s", "", nil)
		if err == nil {
			err = a.JSON(&v)
		}
		if err != nil {
			d.T.Errorf("GET: %v", err)
			return ""
		}
	}
	for time.Now().Before(deadline) {
		a, err := d.request("DELETE", "/vms/"+v.ID, "", nil)
		if err != nil {
			d.T.Errorf("DELETE: %v", err)
			return ""
		}
		if a.Status == http.StatusNoContent || a.Status == http.StatusNotFound || a.Status == http.StatusOK {
			if v.Error != nil {
				return v.Error.Code
			}
			return ""
		}
	}
	d.T.Errorf("machine %s cannot be destroyed", v.ID)
	return ""
}
