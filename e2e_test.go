package main_test

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
)

// The user's own example, sent by the user's own command: curl -d@create.json,
// trailing comma and all, becomes a machine that is as asked inside the guest,
// tells its callback once, is seen when it powers itself off, and goes.
func TestMachineLife(t *testing.T) {
	s := newStage(t)
	i := s.image(tinyvm)
	body := s.firstExample(i, "256mib")
	file := filepath.Join(t.TempDir(), "create.json")
	must(t, os.WriteFile(file, []byte(body), 0o600))
	out, err := exec.Command("curl", "-sS", "-d@"+file, s.URL+"/vms").Output()
	must(t, err)
	var v vm.VM
	must(t, json.Unmarshal(out, &v))
	if v.Phase != vm.Accepted || v.Status != "" || v.Memory != "256mib" {
		t.Errorf("202's document: got %s", out)
	}
	v = s.ready(v.ID)
	if v.GuestOS != "other5xlinux-64" || v.CPUs != 2 || v.Memory != "256mib" || v.IPAddress == "" || v.Hypervisor != "qemu" || !v.LaunchGUI {
		t.Errorf("GET: got %+v", v)
	}
	posted := s.callback()
	if diff := cmp.Diff(v, posted, cmpopts.IgnoreFields(vm.VM{}, "Callback", "ToolsStatus")); diff != "" {
		t.Errorf("the callback's document differs from GET's (-GET +callback):\n%s", diff)
	}
	page := s.page(v)
	kib, _ := strconv.Atoi(page["memory_kib"])
	if page["cpus"] != "2" || kib > 256<<10 || kib < 200<<10 || page["mac"] != v.MACAddress {
		t.Errorf("inside the guest: got %v, want 2 CPUs, nearly 256 MiB, MAC %s", page, v.MACAddress)
	}
	s.until(v.ID, "tools running", func(v vm.VM) bool { return v.ToolsStatus == vm.ToolsRunning })
	_, err = http.Get(e2e.GuestURL(v, "/cgi-bin/poweroff"))
	must(t, err)
	v = s.until(v.ID, "powered-off", func(v vm.VM) bool { return v.Status == vm.PoweredOff })
	if v.IPAddress != "" || v.Phase != vm.Ready || v.CPUs != 2 {
		t.Errorf("powered off: got %+v, want no address, still ready with 2 CPUs", v)
	}
	s.destroy(v.ID)
	_, code, err := s.VM("GET", "/vms/"+v.ID, nil, http.StatusNotFound)
	must(t, err)
	if code != vm.CodeNotFound {
		t.Errorf("GET once gone: got %s, want %s", code, vm.CodeNotFound)
	}
	if n := len(s.site.Callbacks); n != 0 {
		t.Errorf("%d more callbacks came, want one in all", n)
	}
}

// Every phase can be seen from outside. Gates hold each step until it was.
func TestPhases(t *testing.T) {
	dir := t.TempDir()
	env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	clone := gate(t, dir, "qemu-img")
	boot := gate(t, dir, "qemu-system-x86_64")
	s := newStageEnv(t, env)
	i := s.image("tinyvm-zip.zip")
	download := make(chan struct{})
	s.site.Serve = func(w http.ResponseWriter, r *http.Request, file string) {
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
	v := s.create(i.Body(small(nil)))
	in := func(p vm.Phase) func(vm.VM) bool { return func(v vm.VM) bool { return v.Phase == p } }
	v = s.until(v.ID, "downloading with progress", func(v vm.VM) bool {
		return v.Phase == vm.Downloading && v.Progress != nil && v.Progress.Bytes > 0 && v.Progress.Total != nil
	})
	close(download)
	s.until(v.ID, "cloning", in(vm.Cloning))
	clone()
	s.until(v.ID, "starting", in(vm.Starting))
	boot()
	s.until(v.ID, "waiting", in(vm.Waiting))
	s.ready(v.ID)
	s.destroy(v.ID)
}

// gate puts a wrapper before a program that waits until the gate is opened.
func gate(t *testing.T, dir, program string) (open func()) {
	t.Helper()
	path, err := exec.LookPath(program)
	must(t, err)
	opened := filepath.Join(dir, program+".open")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *-version*|*help*) ;; *) while [ ! -e %s ]; do sleep 0.02; done ;; esac\nexec %s \"$@\"\n", opened, path)
	must(t, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755))
	return func() { must(t, os.WriteFile(opened, nil, 0o600)) }
}

// Two machines made from one image at once share its download, and nothing else.
func TestTwoClones(t *testing.T) {
	s := newStage(t)
	body := s.image(tinyvm).Body(small(nil))
	one, two := s.create(body), s.create(body)
	one, two = s.ready(one.ID), s.ready(two.ID)
	if n := s.site.Gets(tinyvm); n != 1 {
		t.Errorf("got %d downloads, want 1", n)
	}
	if e2e.GuestURL(one, "/") == e2e.GuestURL(two, "/") || one.MACAddress == two.MACAddress {
		t.Errorf("two machines share %s or %s", e2e.GuestURL(one, "/"), one.MACAddress)
	}
	if a, b := s.page(one), s.page(two); a["boot_id"] == b["boot_id"] || a["mac"] != one.MACAddress || b["mac"] != two.MACAddress {
		t.Errorf("one machine answers for two: %v, %v", a, b)
	}
	if got := s.mark(one, "first"); got != "first" {
		t.Errorf("the first disk's mark: got %q, want first", got)
	}
	if got := s.mark(two, ""); got == "first" {
		t.Error("the second disk has the first's mark")
	}
	s.destroy(one.ID)
	if page := s.page(two); page["mac"] != two.MACAddress {
		t.Errorf("after the first was destroyed the second answers %v", page)
	}
}

// A daemon that is killed loses nothing that it accepted, and makes nothing
// twice.
func TestKilledDuringDownload(t *testing.T) {
	s := newStage(t)
	i := s.image(tinyvm)
	half := make(chan struct{})
	s.site.Serve = func(w http.ResponseWriter, r *http.Request, file string) {
		b, _ := os.ReadFile(file)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-r.Context().Done()
	}
	v := s.create(i.Body(small(map[string]any{"callback_url": s.site.CallbackURL()})))
	<-half
	s.until(v.ID, "downloading", func(v vm.VM) bool { return v.Phase == vm.Downloading })
	must(t, s.Kill())
	s.site.Serve = nil
	s.start()
	s.resumed(v)
}

func TestKilledDuringBoot(t *testing.T) {
	s := newStage(t)
	v := s.create(s.image(tinyvm).Body(small(map[string]any{"callback_url": s.site.CallbackURL()})))
	s.until(v.ID, "waiting", func(v vm.VM) bool { return v.Phase == vm.Waiting })
	must(t, s.Kill())
	if n := s.machines(); n != 1 {
		t.Errorf("%d machines outlived the daemon, want 1", n)
	}
	s.start()
	s.resumed(v)
}

// resumed checks that a creation went on after a crash.
func (s *stage) resumed(v vm.VM) {
	s.t.Helper()
	v = s.ready(v.ID)
	if n := s.machines(); n != 1 {
		s.t.Errorf("%d machines run, want 1", n)
	}
	if page := s.page(v); page["mac"] != v.MACAddress {
		s.t.Errorf("the guest answers %v, want MAC %s", page, v.MACAddress)
	}
	if posted := s.callback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		s.t.Errorf("callback: got %+v", posted)
	}
}

// Machines keep running while the daemon is away, and are found again.
func TestMachinesOutliveTheDaemon(t *testing.T) {
	s := newStage(t)
	v := s.ready(s.create(s.image(tinyvm).Body(small(nil))).ID)
	before := s.page(v)
	must(t, s.Stop())
	if page := s.page(v); page["boot_id"] != before["boot_id"] {
		t.Errorf("while the daemon is away the guest answers %v, want boot %s", page, before["boot_id"])
	}
	s.start()
	again := s.get(v.ID)
	if again.Status != vm.PoweredOn || again.IPAddress != v.IPAddress || s.page(again)["boot_id"] != before["boot_id"] {
		t.Errorf("after the restart: got %+v, want it as it was: %+v", again, v)
	}
}

// Images of every format, disk kind, controller, NIC and firmware boot.
func TestVariants(t *testing.T) {
	s := newStage(t)
	files, err := filepath.Glob("build/tinyvm-*.sha256")
	must(t, err)
	if len(files) == 0 {
		s.image("tinyvm-zip.zip") // says why
	}
	for _, file := range files {
		file = filepath.Base(strings.TrimSuffix(file, ".sha256"))
		t.Run(file, func(t *testing.T) {
			s := s.in(t)
			v := s.ready(s.create(s.image(file).Body(small(nil))).ID)
			if page := s.page(v); page["mac"] != v.MACAddress {
				t.Errorf("the guest answers %v, want MAC %s", page, v.MACAddress)
			}
			if got := s.mark(v, "kept"); got != "kept" {
				t.Errorf("its disk: got mark %q, want kept", got)
			}
			s.destroy(v.ID)
		})
	}
}
