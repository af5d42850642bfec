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
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// The example of the project's description, sent with curl -d@create.json and with
// its trailing comma, creates a machine. Its guest has the requested hardware, its
// callback is sent once, GET shows when the guest powers off, and the machine can be
// destroyed.
func TestMachineLifecycle(t *testing.T) {
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
		t.Errorf("the document of the 202: got %s", out)
	}
	v = s.WaitReady(v.ID)
	if v.GuestOS != "other5xlinux-64" || v.CPUs != 2 || v.Memory != "256mib" || v.IPAddress == "" ||
		v.Hypervisor != "qemu" || !v.LaunchGUI {
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
		t.Errorf("powered off: got %+v, want ready, 2 CPUs and no address", v)
	}
	s.Destroy(v.ID)
	_, code, err := s.VM("GET", "/vms/"+v.ID, nil, http.StatusNotFound)
	harness.Must(t, err)
	if code != vm.CodeNotFound {
		t.Errorf("GET after the DELETE: got %s, want %s", code, vm.CodeNotFound)
	}
	if n := len(s.Site.Callbacks); n != 0 {
		t.Errorf("got %d more callbacks, want one in total", n)
	}
}

// GET shows every phase. The test blocks each step until GET has shown its phase.
func TestPhases(t *testing.T) {
	t.Parallel()
	dir := harness.ProgramDir(t)
	env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	releaseImg, releaseSystem := holdProgram(t, dir, "qemu-img"), holdProgram(t, dir, "qemu-system-x86_64")
	s := harness.NewEnv(t, env)
	i := s.Image("tinyvm-zip.zip")
	releaseDownload := make(chan struct{})
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
		case <-releaseDownload:
		case <-r.Context().Done():
		}
		_, _ = w.Write(b[len(b)/2:])
	}
	v := s.Create(i.Body(harness.SmallVM(nil)))
	in := func(p vm.Phase) func(vm.VM) bool { return func(v vm.VM) bool { return v.Phase == p } }
	v = s.WaitUntil(v.ID, "downloading with progress", func(v vm.VM) bool {
		return v.Phase == vm.Downloading && v.Progress != nil && v.Progress.Bytes > 0 && v.Progress.Total != nil
	})
	close(releaseDownload)
	s.WaitUntil(v.ID, "cloning", in(vm.Cloning))
	releaseImg()
	s.WaitUntil(v.ID, "starting", in(vm.Starting))
	releaseSystem()
	s.WaitUntil(v.ID, "waiting", in(vm.Waiting))
	s.WaitReady(v.ID)
	s.Destroy(v.ID)
}

// holdProgram writes a wrapper of a program to dir. The wrapper waits until release
// is called, and then executes the program.
func holdProgram(t *testing.T, dir, program string) (release func()) {
	t.Helper()
	path, err := exec.LookPath(program)
	harness.Must(t, err)
	released := filepath.Join(dir, program+".released")
	script := fmt.Sprintf(`#!/bin/sh
case "$*" in
*-version* | *help*) ;;
*) while [ ! -e %s ]; do sleep 0.02; done ;;
esac
exec %s "$@"
`, released, path)
	vmtest.WriteProgram(t, filepath.Join(dir, program), script)
	return func() { harness.Must(t, os.WriteFile(released, nil, 0o600)) }
}

// Two machines that are created from one image at once share its download and nothing
// else.
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
	a, b := s.GuestPage(one), s.GuestPage(two)
	if a["boot_id"] == b["boot_id"] || a["mac"] != one.MACAddress || b["mac"] != two.MACAddress {
		t.Errorf("the pages of the guests: got %v and %v, want those of two machines", a, b)
	}
	if got := s.WriteMark(one, "first"); got != "first" {
		t.Errorf("the first disk's mark: got %q, want first", got)
	}
	if got := s.ReadMark(two); got == "first" {
		t.Error("the second disk has the mark of the first")
	}
	s.Destroy(one.ID)
	if page := s.GuestPage(two); page["mac"] != two.MACAddress {
		t.Errorf("after the first machine is destroyed, the page of the second is %v", page)
	}
}

// After the daemon is killed, the next one continues the creation and does not create
// the machine twice.
func TestKillDuringDownload(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	halfSent := make(chan struct{})
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, file string) {
		b, _ := os.ReadFile(file)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		_ = http.NewResponseController(w).Flush()
		close(halfSent)
		<-r.Context().Done()
	}
	v := s.Create(i.Body(harness.SmallVM(map[string]any{"callback_url": s.Site.CallbackURL()})))
	<-halfSent
	s.WaitUntil(v.ID, "downloading", func(v vm.VM) bool { return v.Phase == vm.Downloading })
	harness.Must(t, s.Kill())
	s.Site.Serve = nil
	s.Start()
	wantResumed(s, v)
}

// See TestKillDuringDownload.
func TestKillDuringBoot(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	v := s.Create(s.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"callback_url": s.Site.CallbackURL()})))
	s.WaitUntil(v.ID, "waiting", func(v vm.VM) bool { return v.Phase == vm.Waiting })
	harness.Must(t, s.Kill())
	if n := s.QEMUCount(); n != 1 {
		t.Errorf("%d machines run after the daemon was killed, want 1", n)
	}
	s.Start()
	wantResumed(s, v)
}

// wantResumed checks that a creation continues after a crash.
func wantResumed(s *harness.Harness, v vm.VM) {
	s.T.Helper()
	v = s.WaitReady(v.ID)
	if n := s.QEMUCount(); n != 1 {
		s.T.Errorf("%d machines run, want 1", n)
	}
	if page := s.GuestPage(v); page["mac"] != v.MACAddress {
		s.T.Errorf("the guest's page is %v, want MAC %s", page, v.MACAddress)
	}
	if posted := s.NextCallback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		s.T.Errorf("callback: got %+v", posted)
	}
}

// Machines keep running while no daemon runs, and the next daemon finds them.
func TestMachinesOutliveDaemon(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	v := s.WaitReady(s.Create(s.Image(harness.TinyVM).Body(harness.SmallVM(nil))).ID)
	before := s.GuestPage(v)
	harness.Must(t, s.Stop())
	if page := s.GuestPage(v); page["boot_id"] != before["boot_id"] {
		t.Errorf("after the daemon stopped the guest's page is %v, want boot %s", page, before["boot_id"])
	}
	s.Start()
	again := s.Get(v.ID)
	if again.Status != vm.PoweredOn || again.IPAddress != v.IPAddress ||
		s.GuestPage(again)["boot_id"] != before["boot_id"] {
		t.Errorf("after the restart: got %+v, want %+v", again, v)
	}
}

// Images of every archive format, disk type, controller, NIC and firmware boot, with the program that users have. The
// race detector would make unpacking take most of the test's time.
func TestImageVariants(t *testing.T) {
	t.Parallel()
	s := harness.NewProgram(t, harness.PlainBinary(t), nil)
	files, err := filepath.Glob(filepath.Join(harness.BuildDir(t), "tinyvm-*.sha256"))
	harness.Must(t, err)
	if len(files) == 0 {
		s.Image("tinyvm-zip.zip") // skips the test
	}
	for _, file := range files {
		file = filepath.Base(strings.TrimSuffix(file, ".sha256"))
		if strings.Contains(file, "arm64") {
			continue // TestARMGuest boots it
		}
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			s := s.WithT(t)
			v := s.WaitReady(s.Create(s.Image(file).Body(harness.SmallVM(nil))).ID)
			if page := s.GuestPage(v); page["mac"] != v.MACAddress {
				t.Errorf("the guest's page is %v, want MAC %s", page, v.MACAddress)
			}
			if got := s.WriteMark(v, "kept"); got != "kept" {
				t.Errorf("the mark on the disk: got %q, want kept", got)
			}
			s.Destroy(v.ID)
		})
	}
}
