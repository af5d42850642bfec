package e2e_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// A machine can be destroyed whatever happened to it. What is left of each is
// looked for at the end.
func TestDestroyUnderFire(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	folder := func(id string) string { return filepath.Join(s.Data, "vms", id) }
	cases := map[string]func(id string){
		"QEMU is stopped":           func(id string) { harness.Must(t, syscall.Kill(s.QEMUPID(id), syscall.SIGSTOP)) },
		"QEMU was killed":           func(id string) { harness.Must(t, syscall.Kill(s.QEMUPID(id), syscall.SIGKILL)) },
		"its socket was removed":    func(id string) { harness.Must(t, os.Remove(filepath.Join(folder(id), "qmp"))) },
		"its pid file was removed":  func(id string) { harness.Must(t, os.Remove(filepath.Join(folder(id), "pid"))) },
		"its folder was removed":    func(id string) { harness.Must(t, os.RemoveAll(folder(id))) },
		"its record was corrupted":  func(id string) { harness.Must(t, os.WriteFile(folder(id)+".json", []byte("{"), 0o600)) },
		"its machine.json is empty": func(id string) { harness.Must(t, os.WriteFile(filepath.Join(folder(id), "machine.json"), nil, 0o600)) },
		"the gold image is gone": func(string) {
			gold := filepath.Join(s.Data, "images", "gold")
			harness.MakeWritable(gold)
			images, _ := filepath.Glob(filepath.Join(gold, "*"))
			for _, image := range images {
				harness.Must(t, os.RemoveAll(image))
			}
		},
	}
	ids := make(map[string]string)
	for name := range cases {
		ids[name] = s.Create(i.Body(harness.SmallVM(nil))).ID
	}
	for name, harm := range cases {
		t.Run(name, func(t *testing.T) {
			v := s.WaitReady(ids[name])
			pid := s.QEMUPID(v.ID)
			harm(v.ID)
			var wg sync.WaitGroup
			for range 2 { // at once
				wg.Go(func() {
					a, err := s.Do("DELETE", "/vms/"+v.ID, "", nil)
					if err != nil || (a.Status != http.StatusNoContent && a.Status != http.StatusNotFound) {
						t.Errorf("DELETE: got %d %s, %v, want 204 or 404", a.Status, a.Body, err)
					}
				})
			}
			wg.Wait()
			if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); err == nil && strings.Contains(string(b), v.ID) {
				t.Errorf("QEMU, process %d, still runs", pid)
			}
			if left, _ := filepath.Glob(folder(v.ID) + "*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A disk that is full, to the last byte, keeps no machine from being destroyed
// and no daemon from starting.
func TestDestroyOnFullDisk(t *testing.T) {
	t.Parallel()
	s := harness.New(t, "-disk-reserve", "0")
	s.MountSmallDisk("128m")
	body := s.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"callback_url": s.Site.CallbackURL()}))
	one, two := s.Create(body), s.Create(body)
	s.WaitReady(one.ID)
	s.WaitReady(two.ID)
	f, err := os.Create(filepath.Join(s.Data, "filler"))
	harness.Must(t, err)
	_, err = io.Copy(f, neverEnds{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: got %v, want %v", err, syscall.ENOSPC)
	}
	harness.Must(t, f.Close())
	if _, code, err := s.VM("POST", "/vms", body, http.StatusInsufficientStorage); err != nil || code != vm.CodeDiskFull {
		t.Errorf("POST: got %s, %v, want 507 %s", code, err, vm.CodeDiskFull)
	}
	harness.Must(t, s.Kill())
	s.Start()
	s.Destroy(one.ID)
	s.Destroy(two.ID)
	if n := s.QEMUCount(); n != 0 {
		t.Errorf("%d machines still run", n)
	}
}

// neverEnds reads as noise.
type neverEnds struct{}

func (neverEnds) Read(b []byte) (int, error) { return len(b), nil }

// A DELETE that meets a daemon that stops is answered, and what it began is
// ended by the next daemon.
func TestDestroyWhileStopping(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	var ids []string
	for range 3 {
		ids = append(ids, s.Create(i.Body(harness.SmallVM(nil))).ID)
	}
	for _, id := range ids {
		s.WaitReady(id)
		harness.Must(t, syscall.Kill(s.QEMUPID(id), syscall.SIGSTOP))
	}
	first := s.Daemon
	answers := make(chan int, len(ids))
	for n, id := range ids {
		go func() {
			time.Sleep(time.Duration(n) * 5 * time.Millisecond) // so that each meets another moment
			a, err := first.Do("DELETE", "/vms/"+id, "", nil)
			if err != nil {
				a.Status = 0 // it no longer listens
			}
			answers <- a.Status
		}()
	}
	time.Sleep(8 * time.Millisecond)
	stopInOrder(s)
	for range ids {
		if status := <-answers; status != http.StatusNoContent && status != http.StatusServiceUnavailable && status != 0 {
			t.Errorf("DELETE: got %d, want 204, 503 or no connection", status)
		}
	}
	s.Start()
	for _, id := range ids {
		if a, err := s.Do("DELETE", "/vms/"+id, "", nil); err != nil || (a.Status != http.StatusNoContent && a.Status != http.StatusNotFound) {
			t.Errorf("DELETE after the restart: got %d %s, %v, want 204 or 404", a.Status, a.Body, err)
		}
	}
	if n := s.QEMUCount(); n != 0 {
		t.Errorf("%d machines still run", n)
	}
}

// A machine that hangs costs its reader an answer, and no other.
func TestHungMachineIsAConflict(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	hung, well := s.Create(i.Body(harness.SmallVM(nil))), s.Create(i.Body(harness.SmallVM(nil)))
	s.WaitReady(hung.ID)
	s.WaitReady(well.ID)
	harness.Must(t, syscall.Kill(s.QEMUPID(hung.ID), syscall.SIGSTOP))
	_, code, err := s.VM("GET", "/vms/"+hung.ID, nil, http.StatusConflict)
	if err != nil || code != vm.CodeOpen {
		t.Errorf("GET: got %s, %v, want 409 %s", code, err, vm.CodeOpen)
	}
	a, err := s.Do("GET", "/vms", "", nil)
	harness.Must(t, err)
	var list struct{ VMs []vm.VM }
	harness.Must(t, a.JSON(&list))
	if len(list.VMs) != 2 || list.VMs[0].Error == nil || list.VMs[1].Error != nil || list.VMs[1].Status != vm.PoweredOn {
		t.Errorf("GET /vms: got %s, want the first with its error and the second powered-on", a.Body)
	}
}

// What happened to machines while the daemon was away is seen by the next: one
// that ended, one whose folder was removed, one whose record was removed, and
// one of which only the process is left.
func TestWhileTheDaemonIsAway(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	var ids []string
	for range 4 {
		ids = append(ids, s.Create(i.Body(harness.SmallVM(nil))).ID)
	}
	for _, id := range ids {
		s.WaitReady(id)
	}
	harness.Must(t, s.Kill())
	ended, folderGone, recordGone, allGone := ids[0], ids[1], ids[2], ids[3]
	harness.Must(t, syscall.Kill(s.QEMUPID(ended), syscall.SIGKILL))
	harness.Must(t, os.RemoveAll(filepath.Join(s.Data, "vms", folderGone)))
	harness.Must(t, os.Remove(filepath.Join(s.Data, "vms", recordGone+".json")))
	harness.Must(t, os.RemoveAll(filepath.Join(s.Data, "vms", allGone)))
	harness.Must(t, os.Remove(filepath.Join(s.Data, "vms", allGone+".json")))
	s.Start()
	if v := s.Get(ended); v.Phase != vm.Ready || v.Status != vm.PoweredOff {
		t.Errorf("the one that ended: got %s, %s, want ready, powered-off", v.Phase, v.Status)
	}
	if v := s.Get(folderGone); v.Phase != vm.Ready || v.Status == vm.PoweredOn {
		t.Errorf("the one without folder: got %s, %q, want ready and not on", v.Phase, v.Status)
	}
	s.Destroy(folderGone)
	s.Destroy(ended)
	if n := s.QEMUCount(); n != 0 {
		t.Errorf("%d machines run that no record knows", n)
	}
}

// Callbacks are signed with every secret of the file; SIGHUP reads it anew, and
// opens the log file anew.
func TestHangup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets")
	key := func(b string) string { return "whsec_" + strings.Repeat(b, 32) }
	harness.Must(t, os.WriteFile(secrets, []byte(key("A")+"\n"), 0o600))
	s := harness.New(t, "-callback-secret-file", secrets)
	i := s.Image(harness.TinyVM)
	body := i.Body(map[string]any{"callback_url": s.Site.CallbackURL(), "memory": "192mib", "image": map[string]string{
		"url": s.Site.ImageURL("none"), "checksum": strings.Repeat("0", 64), "checksum_type": "sha256",
	}})
	s.Site.Serve = func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(http.StatusNotFound) }
	signed := func(keys ...string) {
		t.Helper()
		s.Create(body)
		select {
		case c := <-s.Site.Callbacks:
			for _, k := range keys {
				harness.Must(t, verifySignature(k, c.Header, c.Body))
			}
			if n := len(strings.Fields(c.Header.Get("Webhook-Signature"))); n != len(keys) {
				t.Errorf("got %d signatures, want %d", n, len(keys))
			}
		case <-time.After(harness.Timeout):
			t.Fatal("no callback within 30 s")
		}
	}
	signed(key("A"))
	hangup := func(done string) {
		t.Helper()
		before := strings.Count(s.Log(), done)
		harness.Must(t, syscall.Kill(s.PID(), syscall.SIGHUP))
		for deadline := time.Now().Add(harness.Timeout); strings.Count(s.Log(), done) == before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("SIGHUP: the log does not say %q", done)
			}
		}
	}
	harness.Must(t, os.WriteFile(secrets, []byte(key("B")+"\n"+key("A")+"\n"), 0o600))
	hangup("reloaded the log file")
	signed(key("B"), key("A"))
	harness.Must(t, os.WriteFile(secrets, []byte("nonsense"), 0o600))
	hangup("the previous settings stay in use")
	signed(key("B"), key("A"))
	if strings.Contains(s.Log(), "nonsense") {
		t.Error("the log has the secrets file's words")
	}
}

// The log file can be moved away under the daemon.
func TestLogFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	d := newPlainDaemon(t, "-log-file", path)
	harness.Must(t, os.Rename(path, path+".1"))
	harness.Must(t, syscall.Kill(d.Process.Pid, syscall.SIGHUP))
	waitForText(t, path, "reloaded the log file")
	harness.Must(t, d.Process.Signal(syscall.SIGTERM))
	harness.Must(t, d.Wait())
	waitForText(t, path, "stopping")
	waitForText(t, path+".1", "listening")
}

// A crowd of idle connections keeps nobody out: where there are as many as the
// limit allows, the one that is idle longest gives way.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := harness.New(t, "-connections", "2")
	first, second := dialServed(s), dialServed(s)
	defer second.Close()
	a, err := s.Do("GET", "/healthz", "", nil)
	harness.Must(t, err)
	if a.Status != http.StatusOK {
		t.Errorf("a third connection: got %d, want 200", a.Status)
	}
	harness.Must(t, first.SetReadDeadline(time.Now().Add(harness.Timeout)))
	if _, err := io.ReadAll(first); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection that was idle longest stays open, want it closed")
	}
	harness.Must(t, first.Close())
}
