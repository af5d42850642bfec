//go:build amd64 || arm64

package crash_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// TestFailingDisk creates one machine and destroys another, and lets one write
// to the disk fail, or all writes from that one on. Each answer must be right or
// an error with a code, and after a restart without errors nothing is lost or
// left.
//
// It tests every FAULTS_EACH-th write, from the first write of the creation to
// the last one of the destruction.
func TestFailingDisk(t *testing.T) {
	daemon := harness.MemoryDaemon(t)
	images := t.TempDir()
	for _, name := range []string{"first", "second"} {
		archive := harness.Archive(t,
			name+"/a.vmx", "guestOS = \"other\"\n",
			name+"/disk.vmdk", strings.Repeat(name, 1000))
		harness.Must(t, os.WriteFile(filepath.Join(images, name), archive, 0o600))
	}
	step := harness.EnvInt(t, "FAULTS_EACH", 20)
	for name, fault := range map[string]e2e.Fault{
		"EIO once":            {Errno: unix.EIO, Once: true},
		"EIO from then on":    {Errno: unix.EIO},
		"ENOSPC from then on": {Errno: unix.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := 0
			for fault.At = 1 + int(time.Now().UnixNano()/1000)%step; ; fault.At += step {
				f := newFaultTest(t, daemon, images)
				failed := f.run(fault)
				f.close()
				if t.Failed() {
					t.Fatalf("the test failed with errors from write %d on: %q", fault.At, failed)
				}
				if len(failed) == 0 {
					break // there are fewer writes
				}
				runs++
			}
			t.Logf("in %d runs a different one of about %d writes failed", runs, fault.At)
		})
	}
}

// faultTest is a daemon with a faulty disk, its image server and the receiver
// of its callbacks.
type faultTest struct {
	*e2e.Daemon
	t         *testing.T
	binary    string
	disk      *e2e.FaultyDisk
	site      *e2e.Site
	bodies    map[string][]byte // of POST /vms, by image
	destroyed string            // ID of the machine that is destroyed
	logs      string            // of the daemons that have ended
}

func newFaultTest(t *testing.T, binary, images string) *faultTest {
	t.Helper()
	f := &faultTest{
		t: t, binary: binary, disk: &e2e.FaultyDisk{}, site: e2e.NewSite(images),
		Daemon: &e2e.Daemon{Data: harness.DataDir(t)}, bodies: make(map[string][]byte),
	}
	for _, name := range []string{"first", "second"} {
		i, err := f.site.Image(name)
		harness.Must(t, err)
		f.bodies[name] = i.Body(map[string]any{"callback_url": f.site.CallbackURL(), "memory": "128mib"})
	}
	f.start(f.disk)
	return f
}

func (f *faultTest) start(disk *e2e.FaultyDisk) {
	f.t.Helper()
	d, err := e2e.Start(e2e.Options{Binary: f.binary, Data: f.Data, Disk: disk})
	harness.Must(f.t, err)
	f.Daemon = d
}

func (f *faultTest) close() {
	harness.Must(f.t, f.Kill())
	f.logs += f.Log()
	if f.t.Failed() || strings.Contains(f.logs, "DATA RACE") {
		f.t.Errorf("the daemons' logs:\n%s", f.logs)
	}
	f.site.Close()
}

// run creates a machine and destroys another while the disk fails. Then it
// starts the daemon with a working disk and checks both machines. It returns
// the writes that failed.
func (f *faultTest) run(fault e2e.Fault) []string {
	f.t.Helper()
	other, _ := f.send("POST", "/vms", "first", http.StatusAccepted)
	f.send("GET", "/vms/"+other.ID+"?wait=1m", "", http.StatusOK)
	f.nextCallback(other.ID)
	f.destroyed = other.ID

	f.disk.Arm(fault)
	created, accepted := f.send("POST", "/vms", "second", http.StatusAccepted)
	if accepted {
		f.send("GET", "/vms/"+created.ID+"?wait=300ms", "", http.StatusOK)
	}
	_, destroyed := f.send("DELETE", "/vms/"+other.ID, "", http.StatusNoContent)
	failed := f.disk.Failed()
	if fault.At%2 == 0 {
		harness.Must(f.t, f.Kill())
	} else {
		f.stop()
	}
	f.logs += f.Log()

	f.start(nil)
	f.send("DELETE", "/vms/"+other.ID, "", http.StatusNoContent, http.StatusNotFound)
	if a, err := f.Do("GET", "/vms/"+other.ID, "", nil); err != nil || a.Status != http.StatusNotFound {
		f.t.Errorf("GET of the destroyed machine (first DELETE answered with success: %v): got %d %s, %v, want 404",
			destroyed, a.Status, a.Body, err)
	}
	again, _ := f.send("POST", "/vms", "second", http.StatusAccepted)
	if accepted && again.ID != created.ID {
		f.t.Errorf("the idempotency key created %s, and after the restart %s", created.ID, again.ID)
	}
	f.check(again.ID, accepted)
	return failed
}

// send sends a request and reports whether the answer has the first of the
// wanted statuses. If image is not empty, the body asks for a machine of that
// image, and the image's name is the idempotency key. Another status than the
// wanted ones must be an error with the code of a disk error, after a disk
// error.
func (f *faultTest) send(method, path, image string, want ...int) (v vm.VM, ok bool) {
	f.t.Helper()
	req, err := http.NewRequest(method, f.URL+path, bytes.NewReader(f.bodies[image]))
	harness.Must(f.t, err)
	if image != "" {
		req.Header.Set("Idempotency-Key", image)
	}
	a, err := f.Send(req)
	harness.Must(f.t, err)
	if slices.Contains(want, a.Status) {
		if len(a.Body) > 0 {
			harness.Must(f.t, a.JSON(&v))
		}
		return v, a.Status == want[0]
	}
	var e vm.Error
	harness.Must(f.t, a.JSON(&e))
	diskErrors := []vm.Code{vm.CodeDiskFull, vm.CodeInternal, vm.CodeHypervisor, vm.CodeOpen}
	if len(f.disk.Failed()) == 0 || f.logs != "" || !slices.Contains(diskErrors, e.Code) {
		f.t.Errorf("%s %s: got %d %s, want %v", method, path, a.Status, a.Body, want)
	}
	return v, false
}

// stop stops the daemon with SIGTERM. Its exit status is 1 if disk errors
// prevent it from cleaning up.
func (f *faultTest) stop() {
	f.t.Helper()
	var exit *exec.ExitError
	if err := f.Stop(); err != nil && !errors.As(err, &exit) {
		f.t.Error(err)
	}
}

// check checks the machine and its callback, destroys the machine and checks
// that nothing is left. The machine may have failed only if the daemon created
// it while the disk failed.
func (f *faultTest) check(id string, mayFail bool) {
	f.t.Helper()
	v, _ := f.send("GET", "/vms/"+id+"?wait=1m", "", http.StatusOK)
	if v.Phase != vm.Ready && (v.Phase != vm.Failed || !mayFail) {
		f.t.Errorf("got %s (%+v), want ready, or failed after a disk error", v.Phase, v.Error)
	}
	if got := f.nextCallback(id); outcome(got) != outcome(v) {
		f.t.Errorf("callback: got %s, want %s", outcome(got), outcome(v))
	}
	f.send("DELETE", "/vms/"+id, "", http.StatusNoContent)
	harness.Must(f.t, f.Stop())
	if left := e2e.Leftovers(f.Data); len(left) > 0 {
		f.t.Errorf("left: %q", left)
	}
	if parts, err := filepath.Glob(filepath.Join(f.Data, "images", "*.part*")); err != nil || len(parts) > 0 {
		f.t.Errorf("left: %q, %v", parts, err)
	}
}

// nextCallback returns the machine's next callback. The destroyed machine may
// send its callback again: a disk error can prevent the daemon from recording
// that the callback was accepted.
func (f *faultTest) nextCallback(id string) (v vm.VM) {
	f.t.Helper()
	for {
		select {
		case c := <-f.site.Callbacks:
			harness.Must(f.t, e2e.Response{Body: c.Body}.JSON(&v))
			if v.ID == id {
				return v
			}
			if v.ID != f.destroyed {
				f.t.Errorf("callback of %s, want %s", v.ID, id)
			}
		case <-time.After(harness.Timeout):
			f.t.Fatalf("no callback of %s within %v: %s", id, harness.Timeout, f.Log())
		}
	}
}
