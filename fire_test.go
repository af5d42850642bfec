package main_test

import (
	"encoding/json"
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
)

// process is the QEMU of a machine.
func (s *stage) process(id string) int {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Data, "vms", id, "pid"))
	must(s.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(s.t, err)
	return pid
}

// A machine can be destroyed whatever happened to it. What is left of each is
// looked for at the end.
func TestDestroyUnderFire(t *testing.T) {
	s := newStage(t)
	i := s.image(tinyvm)
	folder := func(id string) string { return filepath.Join(s.Data, "vms", id) }
	cases := map[string]func(id string){
		"QEMU is stopped":           func(id string) { must(t, syscall.Kill(s.process(id), syscall.SIGSTOP)) },
		"QEMU was killed":           func(id string) { must(t, syscall.Kill(s.process(id), syscall.SIGKILL)) },
		"its socket was removed":    func(id string) { must(t, os.Remove(filepath.Join(folder(id), "qmp"))) },
		"its pid file was removed":  func(id string) { must(t, os.Remove(filepath.Join(folder(id), "pid"))) },
		"its folder was removed":    func(id string) { must(t, os.RemoveAll(folder(id))) },
		"its record was corrupted":  func(id string) { must(t, os.WriteFile(folder(id)+".json", []byte("{"), 0o600)) },
		"its machine.json is empty": func(id string) { must(t, os.WriteFile(filepath.Join(folder(id), "machine.json"), nil, 0o600)) },
		"the gold image is gone": func(string) {
			gold := filepath.Join(s.Data, "images", "gold")
			makeWritable(gold)
			images, _ := filepath.Glob(filepath.Join(gold, "*"))
			for _, image := range images {
				must(t, os.RemoveAll(image))
			}
		},
	}
	ids := make(map[string]string)
	for name := range cases {
		ids[name] = s.create(i.Body(small(nil))).ID
	}
	for name, harm := range cases {
		t.Run(name, func(t *testing.T) {
			v := s.ready(ids[name])
			pid := s.process(v.ID)
			harm(v.ID)
			started := time.Now()
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
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("DELETE took %v", took)
			}
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
	s := newStage(t, "-disk-reserve", "0")
	s.smallDisk("128m")
	body := s.image(tinyvm).Body(small(map[string]any{"callback_url": s.site.CallbackURL()}))
	one, two := s.create(body), s.create(body)
	s.ready(one.ID)
	s.ready(two.ID)
	f, err := os.Create(filepath.Join(s.Data, "filler"))
	must(t, err)
	_, err = io.Copy(f, neverEnds{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: got %v, want %v", err, syscall.ENOSPC)
	}
	must(t, f.Close())
	if _, code, err := s.VM("POST", "/vms", body, http.StatusInsufficientStorage); err != nil || code != vm.CodeDiskFull {
		t.Errorf("POST: got %s, %v, want 507 %s", code, err, vm.CodeDiskFull)
	}
	must(t, s.Kill())
	s.start()
	s.destroy(one.ID)
	s.destroy(two.ID)
	if n := s.machines(); n != 0 {
		t.Errorf("%d machines still run", n)
	}
}

// neverEnds reads as noise.
type neverEnds struct{}

func (neverEnds) Read(b []byte) (int, error) { return len(b), nil }

// A DELETE that meets a daemon that stops is answered, and what it began is
// ended by the next daemon.
func TestDestroyWhileStopping(t *testing.T) {
	s := newStage(t)
	i := s.image(tinyvm)
	var ids []string
	for range 3 {
		ids = append(ids, s.create(i.Body(small(nil))).ID)
	}
	for _, id := range ids {
		s.ready(id)
		must(t, syscall.Kill(s.process(id), syscall.SIGSTOP))
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
	s.stopped()
	for range ids {
		if status := <-answers; status != http.StatusNoContent && status != http.StatusServiceUnavailable && status != 0 {
			t.Errorf("DELETE: got %d, want 204, 503 or no connection", status)
		}
	}
	s.start()
	for _, id := range ids {
		if a, err := s.Do("DELETE", "/vms/"+id, "", nil); err != nil || (a.Status != http.StatusNoContent && a.Status != http.StatusNotFound) {
			t.Errorf("DELETE after the restart: got %d %s, %v, want 204 or 404", a.Status, a.Body, err)
		}
	}
	if n := s.machines(); n != 0 {
		t.Errorf("%d machines still run", n)
	}
}

// A machine that hangs costs its reader an answer, and no other.
func TestHungMachineIsAConflict(t *testing.T) {
	s := newStage(t)
	i := s.image(tinyvm)
	hung, well := s.create(i.Body(small(nil))), s.create(i.Body(small(nil)))
	s.ready(hung.ID)
	s.ready(well.ID)
	must(t, syscall.Kill(s.process(hung.ID), syscall.SIGSTOP))
	_, code, err := s.VM("GET", "/vms/"+hung.ID, nil, http.StatusConflict)
	if err != nil || code != vm.CodeOpen {
		t.Errorf("GET: got %s, %v, want 409 %s", code, err, vm.CodeOpen)
	}
	a, err := s.Do("GET", "/vms", "", nil)
	must(t, err)
	var list struct{ VMs []vm.VM }
	must(t, a.JSON(&list))
	if len(list.VMs) != 2 || list.VMs[0].Error == nil || list.VMs[1].Error != nil || list.VMs[1].Status != vm.PoweredOn {
		t.Errorf("GET /vms: got %s, want the first with its error and the second powered-on", a.Body)
	}
}

// What happened to machines while the daemon was away is seen by the next: one
// that ended, one whose folder was removed, one whose record was removed, and
// one of which only the process is left.
func TestWhileTheDaemonIsAway(t *testing.T) {
	s := newStage(t)
	i := s.image(tinyvm)
	var ids []string
	for range 4 {
		ids = append(ids, s.create(i.Body(small(nil))).ID)
	}
	for _, id := range ids {
		s.ready(id)
	}
	must(t, s.Kill())
	ended, folderGone, recordGone, allGone := ids[0], ids[1], ids[2], ids[3]
	must(t, syscall.Kill(s.process(ended), syscall.SIGKILL))
	must(t, os.RemoveAll(filepath.Join(s.Data, "vms", folderGone)))
	must(t, os.Remove(filepath.Join(s.Data, "vms", recordGone+".json")))
	must(t, os.RemoveAll(filepath.Join(s.Data, "vms", allGone)))
	must(t, os.Remove(filepath.Join(s.Data, "vms", allGone+".json")))
	s.start()
	if v := s.get(ended); v.Phase != vm.Ready || v.Status != vm.PoweredOff {
		t.Errorf("the one that ended: got %s, %s, want ready, powered-off", v.Phase, v.Status)
	}
	if v := s.get(folderGone); v.Phase != vm.Ready || v.Status == vm.PoweredOn {
		t.Errorf("the one without folder: got %s, %q, want ready and not on", v.Phase, v.Status)
	}
	s.destroy(folderGone)
	s.destroy(ended)
	if n := s.machines(); n != 0 {
		t.Errorf("%d machines run that no record knows", n)
	}
}

// Callbacks are signed with every secret of the file; SIGHUP reads it anew, and
// opens the log file anew.
func TestHangup(t *testing.T) {
	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets")
	key := func(b string) string { return "whsec_" + strings.Repeat(b, 32) }
	must(t, os.WriteFile(secrets, []byte(key("A")+"\n"), 0o600))
	s := newStage(t, "-callback-secret-file", secrets)
	i := s.image(tinyvm)
	body := i.Body(map[string]any{"callback_url": s.site.CallbackURL(), "memory": "192mib", "image": map[string]string{
		"url": s.site.ImageURL("none"), "checksum": strings.Repeat("0", 64), "checksum_type": "sha256",
	}})
	s.site.Serve = func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(http.StatusNotFound) }
	signed := func(keys ...string) {
		t.Helper()
		s.create(body)
		select {
		case c := <-s.site.Callbacks:
			for _, k := range keys {
				must(t, verifySignature(k, c.Header, c.Body))
			}
			if n := len(strings.Fields(c.Header.Get("Webhook-Signature"))); n != len(keys) {
				t.Errorf("got %d signatures, want %d", n, len(keys))
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no callback within 30 s")
		}
	}
	signed(key("A"))
	hangup := func(done string) {
		t.Helper()
		before := strings.Count(s.Log(), done)
		must(t, syscall.Kill(s.PID(), syscall.SIGHUP))
		for deadline := time.Now().Add(10 * time.Second); strings.Count(s.Log(), done) == before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("SIGHUP: the log does not say %q", done)
			}
		}
	}
	must(t, os.WriteFile(secrets, []byte(key("B")+"\n"+key("A")+"\n"), 0o600))
	hangup("read anew")
	signed(key("B"), key("A"))
	must(t, os.WriteFile(secrets, []byte("nonsense"), 0o600))
	hangup("what was read before holds")
	signed(key("B"), key("A"))
	if strings.Contains(s.Log(), "nonsense") {
		t.Error("the log has the secrets file's words")
	}
}

// The log file can be moved away under the daemon.
func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	d := newPlainDaemon(t, "-log-file", path)
	must(t, os.Rename(path, path+".1"))
	must(t, syscall.Kill(d.Process.Pid, syscall.SIGHUP))
	waitForText(t, path, "read anew")
	must(t, d.Process.Signal(syscall.SIGTERM))
	must(t, d.Wait())
	waitForText(t, path, "stopping")
	waitForText(t, path+".1", "listening")
}

// A crowd of idle connections keeps nobody out for long: those beyond the
// limit wait for a place.
func TestConnectionsAreBounded(t *testing.T) {
	s := newStage(t, "-connections", "2")
	held := s.dial()
	held2 := s.dial()
	answered := make(chan error, 1)
	go func() {
		a, err := s.Do("GET", "/healthz", "", nil)
		if err == nil && a.Status != http.StatusOK {
			err = json.Unmarshal(a.Body, new(int))
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("a third connection was served at once (%v)", err)
	case <-time.After(300 * time.Millisecond):
	}
	must(t, held.Close())
	must(t, <-answered)
	must(t, held2.Close())
}
