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

	"osx-builder/vm/vmtest/harness"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// Whichever change of a file fails, from the first of a creation to the last
// of a destruction, once or from then on: what is answered is right or an
// error with a code, and the next start puts all right.
//
// FAULTS_EACH says which changes fail in turn: each, or one in so many.
func TestFailingDisk(t *testing.T) {
	daemon := harness.MemoryDaemon(t)
	images := t.TempDir()
	for _, name := range []string{"first", "second"} {
		archive := harness.Archive(t, name+"/a.vmx", "guestOS = \"other\"\n", name+"/disk.vmdk", strings.Repeat(name, 1000))
		harness.Must(t, os.WriteFile(filepath.Join(images, name), archive, 0o600))
	}
	each := harness.EnvInt(t, "FAULTS_EACH", 20)
	for name, fault := range map[string]e2e.Fault{
		"EIO once":            {Errno: unix.EIO, Once: true},
		"EIO from then on":    {Errno: unix.EIO},
		"ENOSPC from then on": {Errno: unix.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := 0
			for fault.At = 1 + int(time.Now().UnixNano()/1000)%each; ; fault.At += each {
				f := newFaulty(t, daemon, images)
				failed := f.trial(fault)
				f.close()
				if t.Failed() {
					t.Fatalf("it failed from change %d on: %q", fault.At, failed)
				}
				if len(failed) == 0 {
					break // that change lies beyond the last
				}
				runs++
			}
			t.Logf("%d of about %d changes failed, one a run", runs, fault.At)
		})
	}
}

// faulty is a daemon whose disk can be made to fail.
type faulty struct {
	*e2e.Daemon
	t      *testing.T
	binary string
	disk   *e2e.FaultyDisk
	site   *e2e.Site
	bodies map[string][]byte // by the image's name
	other  string            // the machine that is to be destroyed
	logs   string            // of the daemons that have ended
}

func newFaulty(t *testing.T, binary, images string) *faulty {
	t.Helper()
	data, err := os.MkdirTemp("", "osxb")
	harness.Must(t, err)
	f := &faulty{t: t, binary: binary, disk: &e2e.FaultyDisk{}, site: e2e.NewSite(images), Daemon: &e2e.Daemon{Data: data}, bodies: make(map[string][]byte)}
	for _, name := range []string{"first", "second"} {
		sum, err := e2e.SHA256(filepath.Join(images, name))
		harness.Must(t, err)
		f.bodies[name] = e2e.Image{URL: f.site.ImageURL(name), SHA256: sum}.Body(map[string]any{"callback_url": f.site.CallbackURL(), "memory": "128mib"})
	}
	f.start(f.disk)
	return f
}

func (f *faulty) start(disk *e2e.FaultyDisk) {
	f.t.Helper()
	d, err := e2e.Start(e2e.Options{Binary: f.binary, Data: f.Data, Disk: disk})
	harness.Must(f.t, err)
	f.Daemon = d
}

func (f *faulty) close() {
	harness.Must(f.t, f.Kill())
	f.logs += f.Log()
	if f.t.Failed() || strings.Contains(f.logs, "DATA RACE") {
		f.t.Errorf("the daemons' logs:\n%s", f.logs)
	}
	f.site.Close()
	harness.MakeWritable(f.Data)
	harness.Must(f.t, os.RemoveAll(f.Data))
}

// trial creates a machine and destroys another while the disk fails, starts
// the daemon again on one that works, and looks at what has become of both. It
// returns the changes that failed.
func (f *faulty) trial(fault e2e.Fault) []string {
	f.t.Helper()
	other, _ := f.send("POST", "/vms", "first", http.StatusAccepted)
	f.send("GET", "/vms/"+other.ID+"?wait=1m", "", http.StatusOK)
	f.told(other.ID)
	f.other = other.ID

	f.disk.Arm(fault)
	made, accepted := f.send("POST", "/vms", "second", http.StatusAccepted)
	if accepted {
		f.send("GET", "/vms/"+made.ID+"?wait=300ms", "", http.StatusOK)
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
		f.t.Errorf("destroyed (answered: %v), and GET answers %d %s, %v", destroyed, a.Status, a.Body, err)
	}
	again, _ := f.send("POST", "/vms", "second", http.StatusAccepted)
	if accepted && again.ID != made.ID {
		f.t.Errorf("the key made %s, and after the restart %s", made.ID, again.ID)
	}
	f.check(again.ID, accepted)
	return failed
}

// send sends a request, for a machine of an image with the image's name as its
// key, and returns whether the answer has the first of these
// statuses. Another than these is an error with a code of a disk that fails,
// where that is to be expected.
func (f *faulty) send(method, path, image string, want ...int) (v vm.VM, ok bool) {
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
	disks := []vm.Code{vm.CodeDiskFull, vm.CodeInternal, vm.CodeHypervisor, vm.CodeOpen}
	if len(f.disk.Failed()) == 0 || f.logs != "" || !slices.Contains(disks, e.Code) {
		f.t.Errorf("%s %s: got %d %s, want %v", method, path, a.Status, a.Body, want)
	}
	return v, false
}

// stop ends the daemon in order, which a disk that fails may keep from tidying
// up.
func (f *faulty) stop() {
	f.t.Helper()
	var exit *exec.ExitError // its exit status is 1 if something could not be tidied up
	if err := f.Stop(); err != nil && !errors.As(err, &exit) {
		f.t.Error(err)
	}
}

// check holds the machine against its promise, and destroys it.
func (f *faulty) check(id string, whole bool) {
	f.t.Helper()
	v, _ := f.send("GET", "/vms/"+id+"?wait=1m", "", http.StatusOK)
	if v.Phase != vm.Ready && (v.Phase != vm.Failed || !whole) {
		f.t.Errorf("got %s (%+v), want ready, or failed where the disk did", v.Phase, v.Error)
	}
	if got := f.told(id); said(got) != said(v) {
		f.t.Errorf("callback: got %s, want %s", said(got), said(v))
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

// told returns the machine's next callback. That of the other may come again:
// that it was taken could not be written down.
func (f *faulty) told(id string) (v vm.VM) {
	f.t.Helper()
	for {
		select {
		case c := <-f.site.Callbacks:
			harness.Must(f.t, e2e.Answer{Body: c.Body}.JSON(&v))
			if v.ID == id {
				return v
			}
			if v.ID != f.other {
				f.t.Errorf("callback of %s, want %s", v.ID, id)
			}
		case <-time.After(harness.Patience):
			f.t.Fatalf("no callback of %s within %v: %s", id, harness.Patience, f.Log())
		}
	}
}
