// The simulator of vCenter has data races of its own, and here it runs in the test's process.
//go:build !race

package e2e_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
)

// A daemon that is killed at any call of a machine's life continues after its start: the machine becomes ready, there is
// one template, and nothing is left in the end.
func TestVSphereKilled(t *testing.T) {
	t.Parallel()
	for _, method := range []string{
		"ImportVApp", "HttpNfcLeaseGetManifest", "HttpNfcLeaseComplete", "CreateSnapshot_Task", "MarkAsTemplate", "CloneVM_Task",
		"ReconfigVM_Task", "PowerOnVM_Task", "Destroy_Task",
	} {
		t.Run(method, func(t *testing.T) {
			k := &killer{method: method}
			server, err := vcenter.Start(vcenter.Options{Hook: k.hook})
			harness.Must(t, err)
			t.Cleanup(server.Close)
			password := filepath.Join(t.TempDir(), "password")
			harness.Must(t, os.WriteFile(password, []byte(vcenter.Password), 0o600))
			h := harness.New(t, server.Flags(password)...)
			i := vsphereImage(t, h)
			k.arm(h.Daemon)
			v := h.Create(i.Body(harness.SmallVM(nil)))
			if method == "Destroy_Task" {
				h.WaitReady(v.ID)
				_, _ = h.Do("DELETE", "/vms/"+v.ID, "", nil) // the daemon dies during it
			}
			k.wait(t)
			h.Start()
			if method == "Destroy_Task" {
				waitGone(h, v.ID) // the daemon that starts continues the destruction, and may have ended it already
			} else {
				h.WaitReady(v.ID)
				h.Destroy(v.ID)
			}
			if got := server.Machines(); len(got) != 1 || !strings.HasPrefix(got[0], "osxb-image-") {
				t.Errorf("got %v, want nothing but one template", got)
			}
		})
	}
}

// waitGone waits until no machine has the ID.
func waitGone(h *harness.Harness, id string) {
	h.T.Helper()
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		a, err := h.Do("GET", "/vms/"+id, "", nil)
		harness.Must(h.T, err)
		if a.Status == http.StatusNotFound {
			return
		}
	}
	h.T.Errorf("machine %s is still there", id)
}

// killer kills the daemon at the first call of a method.
type killer struct {
	method string

	mu     sync.Mutex
	daemon *e2e.Daemon   // nil while it is not to be killed; guarded by mu
	dead   chan struct{} // closed once it is; guarded by mu
}

func (k *killer) arm(d *e2e.Daemon) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.daemon, k.dead = d, make(chan struct{})
}

func (k *killer) hook(method string) types.BaseMethodFault {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.daemon == nil || method != k.method {
		return nil
	}
	err := k.daemon.Kill()
	k.daemon = nil
	close(k.dead)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return &types.SystemError{Reason: err.Error()}
	}
	return nil // the server executes the call of the daemon that is dead
}

func (k *killer) wait(t *testing.T) {
	t.Helper()
	k.mu.Lock()
	dead := k.dead
	k.mu.Unlock()
	select {
	case <-dead:
	case <-t.Context().Done():
	}
}
