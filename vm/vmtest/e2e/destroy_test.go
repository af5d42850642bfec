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

// A damaged machine can be destroyed by two requests at once, and nothing of it is
// left.
func TestDestroyDamagedMachines(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	body := idleMachine(s)
	folder := func(id string) string { return filepath.Join(s.Data, "vms", id) }
	cases := map[string]func(id string){
		"stopped QEMU":   func(id string) { harness.Must(t, syscall.Kill(s.QEMUPID(id), syscall.SIGSTOP)) },
		"killed QEMU":    func(id string) { harness.Must(t, syscall.Kill(s.QEMUPID(id), syscall.SIGKILL)) },
		"no socket":      func(id string) { harness.Must(t, os.Remove(filepath.Join(folder(id), "qmp"))) },
		"no pid file":    func(id string) { harness.Must(t, os.Remove(filepath.Join(folder(id), "pid"))) },
		"no folder":      func(id string) { harness.Must(t, os.RemoveAll(folder(id))) },
		"damaged record": func(id string) { harness.Must(t, os.WriteFile(folder(id)+".json", []byte("{"), 0o600)) },
		"empty machine.json": func(id string) {
			harness.Must(t, os.WriteFile(filepath.Join(folder(id), "machine.json"), nil, 0o600))
		},
		"no gold image": func(string) {
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
		ids[name] = s.Create(body).ID
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			v := s.WaitReady(ids[name])
			pid := s.QEMUPID(v.ID)
			damage(v.ID)
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					a, err := s.Do("DELETE", "/vms/"+v.ID, "", nil)
					if err != nil || (a.Status != http.StatusNoContent && a.Status != http.StatusNotFound) {
						t.Errorf("DELETE: got %d %s, %v, want 204 or 404", a.Status, a.Body, err)
					}
				})
			}
			wg.Wait()
			cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
			if err == nil && strings.Contains(string(cmdline), v.ID) {
				t.Errorf("QEMU, process %d, still runs", pid)
			}
			if left, _ := filepath.Glob(folder(v.ID) + "*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// If the disk is full to the last byte, machines can be destroyed and the daemon can
// start.
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
	_, err = io.Copy(f, endlessReader{})
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

// endlessReader reads an endless stream without setting the bytes.
type endlessReader struct{}

func (endlessReader) Read(b []byte) (int, error) { return len(b), nil }

// idleMachine returns a request for a machine whose guest does not boot, for tests that only need its process: the boot
// is what costs most of a test's time. The harness serves no other image from then on.
func idleMachine(s *harness.Harness) []byte {
	s.T.Helper()
	const bytes = 4096
	archive := randomDiskImage(s.T, "idle", bytes)
	s.Serve(map[string][]byte{"idle": archive})
	return s.ImageOf("idle", archive).Body(harness.SmallVM(map[string]any{"tools_init_timeout": 1}))
}

// createMachines creates machines as idleMachine, waits until they are ready and returns their IDs.
func createMachines(s *harness.Harness, n int) (ids []string) {
	s.T.Helper()
	body := idleMachine(s)
	for range n {
		ids = append(ids, s.Create(body).ID)
	}
	for _, id := range ids {
		s.WaitReady(id)
	}
	return ids
}

// A DELETE gets a response while the daemon stops, and the next daemon completes the
// destruction.
func TestDestroyWhileStopping(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	ids := createMachines(s, 3)
	for _, id := range ids {
		harness.Must(t, syscall.Kill(s.QEMUPID(id), syscall.SIGSTOP))
	}
	first := s.Daemon
	answers := make(chan int, len(ids))
	for n, id := range ids {
		go func() {
			// Some requests arrive before the daemon stops, and others while it stops or
			// after. The test accepts all of these cases.
			time.Sleep(time.Duration(n) * 5 * time.Millisecond)
			a, err := first.Do("DELETE", "/vms/"+id, "", nil)
			if err != nil {
				a.Status = 0 // the daemon no longer listens
			}
			answers <- a.Status
		}()
	}
	time.Sleep(8 * time.Millisecond)
	stopGracefully(s)
	for range ids {
		if status := <-answers; status != http.StatusNoContent && status != http.StatusServiceUnavailable && status != 0 {
			t.Errorf("DELETE: got %d, want 204, 503 or no connection", status)
		}
	}
	s.Start()
	for _, id := range ids {
		a, err := s.Do("DELETE", "/vms/"+id, "", nil)
		if err != nil || (a.Status != http.StatusNoContent && a.Status != http.StatusNotFound) {
			t.Errorf("DELETE after the restart: got %d %s, %v, want 204 or 404", a.Status, a.Body, err)
		}
	}
	if n := s.QEMUCount(); n != 0 {
		t.Errorf("%d machines still run", n)
	}
}

// GET of a machine that hangs is a conflict. Other machines are not affected.
func TestGetHungMachine(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	hung := createMachines(s, 2)[0]
	harness.Must(t, syscall.Kill(s.QEMUPID(hung), syscall.SIGSTOP))
	_, code, err := s.VM("GET", "/vms/"+hung, nil, http.StatusConflict)
	if err != nil || code != vm.CodeOpen {
		t.Errorf("GET: got %s, %v, want 409 %s", code, err, vm.CodeOpen)
	}
	vms, err := s.List()
	harness.Must(t, err)
	if len(vms) != 2 || vms[0].Error == nil || vms[1].Error != nil || vms[1].Status != vm.PoweredOn {
		t.Errorf("GET /vms: got %+v, want the first with an error and the second powered-on", vms)
	}
}

// A daemon that starts finds what happened to machines while none ran: one machine
// ended, one lost its folder, one its record, and of one only the process is left.
func TestMachinesChangeWhileDaemonIsDown(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	ids := createMachines(s, 4)
	harness.Must(t, s.Kill())
	ended, folderGone, recordGone, allGone := ids[0], ids[1], ids[2], ids[3]
	harness.Must(t, syscall.Kill(s.QEMUPID(ended), syscall.SIGKILL))
	harness.Must(t, os.RemoveAll(filepath.Join(s.Data, "vms", folderGone)))
	harness.Must(t, os.Remove(filepath.Join(s.Data, "vms", recordGone+".json")))
	harness.Must(t, os.RemoveAll(filepath.Join(s.Data, "vms", allGone)))
	harness.Must(t, os.Remove(filepath.Join(s.Data, "vms", allGone+".json")))
	s.Start()
	if v := s.Get(ended); v.Phase != vm.Ready || v.Status != vm.PoweredOff {
		t.Errorf("the machine that ended: got %s, %s, want ready, powered-off", v.Phase, v.Status)
	}
	if v := s.Get(folderGone); v.Phase != vm.Ready || v.Status == vm.PoweredOn {
		t.Errorf("the machine without a folder: got %s, %q, want ready and not powered-on", v.Phase, v.Status)
	}
	s.Destroy(folderGone)
	s.Destroy(ended)
	if n := s.QEMUCount(); n != 0 {
		t.Errorf("%d machines without a record run", n)
	}
}
