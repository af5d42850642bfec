package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// The user's own example, sent by the user's own command: curl -d@create.json,
// trailing comma and all, becomes a machine that is as asked inside the guest,
// tells its callback once, is seen when it powers itself off, and goes.
func TestMachineLife(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	body := s.ExampleRequest(i, "256mib")
	file := filepath.Join(t.TempDir(), "create.json")
	harness.Must(t, os.WriteFile(file, []byte(body), 0o600))
	out, err := exec.Command("curl", "-sS", "-d@"+file, s.URL+"/vms").Output()
	harness.Must(t, err)
	var v vm.VM
	harness.Must(t, json.Unmarshal(out, &v))
	if v.Phase != vm.Accepted || v.Status != "" || v.Memory != "256mib" {
		t.Errorf("202's document: got %s", out)
	}
	v = s.WaitReady(v.ID)
	if v.GuestOS != "other5xlinux-64" || v.CPUs != 2 || v.Memory != "256mib" || v.IPAddress == "" || v.Hypervisor != "qemu" || !v.LaunchGUI {
		t.Errorf("GET: got %+v", v)
	}
	posted := s.NextCallback()
	if diff := cmp.Diff(v, posted, cmpopts.IgnoreFields(vm.VM{}, "Callback", "ToolsStatus")); diff != "" {
		t.Errorf("the callback's document differs from GET's (-GET +callback):\n%s", diff)
	}
	page := s.GuestPage(v)
	kib, _ := strconv.Atoi(page["memory_kib"])
	if page["cpus"] != "2" || kib > 256<<10 || kib < 200<<10 || page["mac"] != v.MACAddress {
		t.Errorf("inside the guest: got %v, want 2 CPUs, nearly 256 MiB, MAC %s", page, v.MACAddress)
	}
	s.WaitUntil(v.ID, "tools running", func(v vm.VM) bool { return v.ToolsStatus == vm.ToolsRunning })
	_, err = http.Get(e2e.GuestURL(v, "/cgi-bin/poweroff"))
	harness.Must(t, err)
	v = s.WaitUntil(v.ID, "powered-off", func(v vm.VM) bool { return v.Status == vm.PoweredOff })
	if v.IPAddress != "" || v.Phase != vm.Ready || v.CPUs != 2 {
		t.Errorf("powered off: got %+v, want no address, still ready with 2 CPUs", v)
	}
	s.Destroy(v.ID)
	_, code, err := s.VM("GET", "/vms/"+v.ID, nil, http.StatusNotFound)
	harness.Must(t, err)
	if code != vm.CodeNotFound {
		t.Errorf("GET once gone: got %s, want %s", code, vm.CodeNotFound)
	}
	if n := len(s.Site.Callbacks); n != 0 {
		t.Errorf("%d more callbacks came, want one in all", n)
	}
}

// Every phase can be seen from outside. Gates hold each step until it was.
func TestPhases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	clone := gate(t, dir, "qemu-img")
	boot := gate(t, dir, "qemu-system-x86_64")
	s := harness.NewEnv(t, env)
	i := s.Image("tinyvm-zip.zip")
	download := make(chan struct{})
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, file string) {
		b, err := os.ReadFile(file)
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-download:
		case <-r.Context().Done():
		}
		_, _ = w.Write(b[len(b)/2:])
	}
	v := s.Create(i.Body(harness.SmallVM(nil)))
	in := func(p vm.Phase) func(vm.VM) bool { return func(v vm.VM) bool { return v.Phase == p } }
	v = s.WaitUntil(v.ID, "downloading with progress", func(v vm.VM) bool {
		return v.Phase == vm.Downloading && v.Progress != nil && v.Progress.Bytes > 0 && v.Progress.Total != nil
	})
	close(download)
	s.WaitUntil(v.ID, "cloning", in(vm.Cloning))
	clone()
	s.WaitUntil(v.ID, "starting", in(vm.Starting))
	boot()
	s.WaitUntil(v.ID, "waiting", in(vm.Waiting))
	s.WaitReady(v.ID)
	s.Destroy(v.ID)
}

// gate puts a wrapper before a program that waits until the gate is opened.
func gate(t *testing.T, dir, program string) (open func()) {
	t.Helper()
	path, err := exec.LookPath(program)
	harness.Must(t, err)
	opened := filepath.Join(dir, program+".open")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *-version*|*help*) ;; *) while [ ! -e %s ]; do sleep 0.02; done ;; esac\nexec %s \"$@\"\n", opened, path)
	harness.Must(t, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755))
	return func() { harness.Must(t, os.WriteFile(opened, nil, 0o600)) }
}

// Two machines made from one image at once share its download, and nothing else.
func TestTwoClones(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	body := s.Image(harness.TinyVM).Body(harness.SmallVM(nil))
	one, two := s.Create(body), s.Create(body)
	one, two = s.WaitReady(one.ID), s.WaitReady(two.ID)
	if n := s.Site.Downloads(harness.TinyVM); n != 1 {
		t.Errorf("got %d downloads, want 1", n)
	}
	if e2e.GuestURL(one, "/") == e2e.GuestURL(two, "/") || one.MACAddress == two.MACAddress {
		t.Errorf("two machines share %s or %s", e2e.GuestURL(one, "/"), one.MACAddress)
	}
	if a, b := s.GuestPage(one), s.GuestPage(two); a["boot_id"] == b["boot_id"] || a["mac"] != one.MACAddress || b["mac"] != two.MACAddress {
		t.Errorf("one machine answers for two: %v, %v", a, b)
	}
	if got := s.WriteMark(one, "first"); got != "first" {
		t.Errorf("the first disk's mark: got %q, want first", got)
	}
	if got := s.ReadMark(two); got == "first" {
		t.Error("the second disk has the first's mark")
	}
	s.Destroy(one.ID)
	if page := s.GuestPage(two); page["mac"] != two.MACAddress {
		t.Errorf("after the first was destroyed the second answers %v", page)
	}
}

// A daemon that is killed loses nothing that it accepted, and makes nothing
// twice.
func TestKilledDuringDownload(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	half := make(chan struct{})
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, file string) {
		b, _ := os.ReadFile(file)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-r.Context().Done()
	}
	v := s.Create(i.Body(harness.SmallVM(map[string]any{"callback_url": s.Site.CallbackURL()})))
	<-half
	s.WaitUntil(v.ID, "downloading", func(v vm.VM) bool { return v.Phase == vm.Downloading })
	harness.Must(t, s.Kill())
	s.Site.Serve = nil
	s.Start()
	wantResumed(s, v)
}

func TestKilledDuringBoot(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	v := s.Create(s.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"callback_url": s.Site.CallbackURL()})))
	s.WaitUntil(v.ID, "waiting", func(v vm.VM) bool { return v.Phase == vm.Waiting })
	harness.Must(t, s.Kill())
	if n := s.QEMUCount(); n != 1 {
		t.Errorf("%d machines outlived the daemon, want 1", n)
	}
	s.Start()
	wantResumed(s, v)
}

// wantResumed checks that a creation went on after a crash.
func wantResumed(s *harness.Harness, v vm.VM) {
	s.T.Helper()
	v = s.WaitReady(v.ID)
	if n := s.QEMUCount(); n != 1 {
		s.T.Errorf("%d machines run, want 1", n)
	}
	if page := s.GuestPage(v); page["mac"] != v.MACAddress {
		s.T.Errorf("the guest answers %v, want MAC %s", page, v.MACAddress)
	}
	if posted := s.NextCallback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		s.T.Errorf("callback: got %+v", posted)
	}
}

// Machines keep running while the daemon is away, and are found again.
func TestMachinesOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	v := s.WaitReady(s.Create(s.Image(harness.TinyVM).Body(harness.SmallVM(nil))).ID)
	before := s.GuestPage(v)
	harness.Must(t, s.Stop())
	if page := s.GuestPage(v); page["boot_id"] != before["boot_id"] {
		t.Errorf("while the daemon is away the guest answers %v, want boot %s", page, before["boot_id"])
	}
	s.Start()
	again := s.Get(v.ID)
	if again.Status != vm.PoweredOn || again.IPAddress != v.IPAddress || s.GuestPage(again)["boot_id"] != before["boot_id"] {
		t.Errorf("after the restart: got %+v, want it as it was: %+v", again, v)
	}
}

// Images of every format, disk kind, controller, NIC and firmware boot.
func TestVariants(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	files, err := filepath.Glob(filepath.Join(harness.BuildDir(t), "tinyvm-*.sha256"))
	harness.Must(t, err)
	if len(files) == 0 {
		s.Image("tinyvm-zip.zip") // says why
	}
	for _, file := range files {
		file = filepath.Base(strings.TrimSuffix(file, ".sha256"))
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			s := s.WithT(t)
			v := s.WaitReady(s.Create(s.Image(file).Body(harness.SmallVM(nil))).ID)
			if page := s.GuestPage(v); page["mac"] != v.MACAddress {
				t.Errorf("the guest answers %v, want MAC %s", page, v.MACAddress)
			}
			if got := s.WriteMark(v, "kept"); got != "kept" {
				t.Errorf("its disk: got mark %q, want kept", got)
			}
			s.Destroy(v.ID)
		})
	}
}
