package e2e_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// newVMRun returns a harness whose daemon uses the double of VMware's command, and the double's control folder.
func newVMRun(t *testing.T) (*harness.Harness, string) {
	t.Helper()
	control := t.TempDir()
	env := append(os.Environ(), "OSXB_VMRUN_DOUBLE="+control, "DISPLAY=")
	return harness.NewEnv(t, env, "-driver", "vmrun", "-vmrun", harness.Path(t, "vm/vmrun/testdata/vmrun")), control
}

// A machine's life in VMware through vmrun, over HTTP: creation, state, power, screenshot, a killed daemon, deletion.
func TestVMRunLifecycle(t *testing.T) {
	t.Parallel()
	h, control := newVMRun(t)
	i := h.Image(harness.TinyVM)
	v := h.Create(i.Body(harness.SmallVM(map[string]any{"callback_url": h.Site.CallbackURL()})))
	h.WaitReady(v.ID)
	before := h.WaitUntil(v.ID, "reachable", func(v vm.VM) bool { return v.IPAddress != "" && v.ToolsStatus == vm.ToolsRunning })
	if before.Hypervisor != "vmrun" || before.Status != vm.PoweredOn || before.CPUs != 1 || before.Memory != "192mib" ||
		before.GuestOS != "other5xlinux-64" || !strings.HasPrefix(before.IPAddress, "192.168.99.") ||
		!strings.HasPrefix(before.MACAddress, "00:0c:29:") {
		t.Errorf("GET: got %+v", before)
	}
	if posted := h.NextCallback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		t.Errorf("callback: got %+v, want the ready machine", posted)
	}
	a, err := h.Do("GET", "/vms/"+v.ID+"/screenshot", "", nil)
	harness.Must(t, err)
	if a.Status != http.StatusOK || !strings.HasPrefix(string(a.Body), "\x89PNG") {
		t.Errorf("screenshot: got %d %.100q, want a PNG", a.Status, a.Body)
	}

	harness.Must(t, h.Kill())
	h.Start()
	if after := h.Get(v.ID); after.Status != vm.PoweredOn || after.MACAddress != before.MACAddress {
		t.Errorf("after a crash: got %+v, want %+v", after, before)
	}
	h.WalkPower(v.ID)
	h.Destroy(v.ID)
	left, err := filepath.Glob(filepath.Join(h.Data, "vms", "*"))
	harness.Must(t, err)
	running, err := filepath.Glob(filepath.Join(control, "running", "*"))
	harness.Must(t, err)
	if len(left)+len(running) != 0 {
		t.Errorf("after the DELETE: got the files %q and the running machines %q, want none", left, running)
	}
	stopGracefully(h)
}

// If vmrun fails, the machine fails with its text. If vmrun hangs, the daemon can be stopped and continues later.
func TestVMRunFailures(t *testing.T) {
	t.Parallel()
	h, control := newVMRun(t)
	i := h.Image(harness.TinyVM)
	harness.Must(t, os.WriteFile(filepath.Join(control, "error.start"), []byte("The operation was canceled\n"), 0o600))
	v := h.WaitSettled(h.Create(i.Body(harness.SmallVM(nil))).ID)
	if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != vm.CodeHypervisor {
		t.Fatalf("got phase %s with %+v, want failed with %s", v.Phase, v.Error, vm.CodeHypervisor)
	}
	wantContains(t, "its error", v.Error.Message, "The operation was canceled", "desktop session")
	h.Destroy(v.ID)
	harness.Must(t, os.Remove(filepath.Join(control, "error.start")))

	harness.Must(t, os.WriteFile(filepath.Join(control, "hang.start"), nil, 0o600))
	v = h.Create(i.Body(harness.SmallVM(nil)))
	h.WaitUntil(v.ID, "starting", func(v vm.VM) bool { return v.Phase == vm.Starting })
	stopGracefully(h)
	harness.Must(t, os.Remove(filepath.Join(control, "hang.start")))
	h.Start()
	h.WaitReady(v.ID)
	h.Destroy(v.ID)
}

// With -driver auto, VMware that starts after the daemon is used, without a restart by hand.
func TestVMwareStartsLater(t *testing.T) {
	t.Parallel()
	control := t.TempDir()
	refusal := filepath.Join(control, "error.VixHost_Connect")
	harness.Must(t, os.WriteFile(refusal, []byte("22005"), 0o600))
	h := harness.NewEnv(t, append(os.Environ(), "OSXB_VIX_DOUBLE="+control),
		"-driver", "auto", "-vix-library", buildVIXDouble(t), "-listen", harness.FreeAddress(t))
	hypervisor := func() string {
		a, err := h.Do("GET", "/healthz", "", nil)
		var health vm.Health
		if err != nil || a.JSON(&health) != nil {
			return "" // the daemon starts again
		}
		return health.Hypervisor
	}
	if got := hypervisor(); got != "qemu" {
		t.Errorf("while VMware refuses: got %q, want qemu", got)
	}
	harness.Must(t, os.Remove(refusal))
	for deadline := time.Now().Add(harness.Timeout); hypervisor() != "vix"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("VMware, which answers now, is not used")
		}
	}
	v := h.WaitReady(h.Create(h.Image(harness.TinyVM).Body(harness.SmallVM(nil))).ID)
	if v.Hypervisor != "vix" {
		t.Errorf("got a machine on %q, want vix", v.Hypervisor)
	}
	h.Destroy(v.ID)
	stopGracefully(h)
}

// check-vmware walks both drivers of VMware through a machine's life, with a machine of its own and with an image, and
// leaves nothing. If a step fails, the report says which, and the exit status is not 0.
func TestCheckVMware(t *testing.T) {
	t.Parallel()
	home, library := t.TempDir(), buildVIXDouble(t)
	vixControl, vmrunControl := t.TempDir(), t.TempDir()
	check := func(args ...string) (string, error) {
		cmd := exec.Command(harness.Binary(t), append(args, "-data", filepath.Join(home, "data"), "-vix-library", library,
			"-vmrun", harness.Path(t, "vm/vmrun/testdata/vmrun"))...)
		cmd.Env = append(os.Environ(), "OSXB_VIX_DOUBLE="+vixControl, "OSXB_VMRUN_DOUBLE="+vmrunControl, "DISPLAY=")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	image := filepath.Join(t.TempDir(), "image.vmx")
	harness.Must(t, os.WriteFile(image, []byte(harness.VMX("disk.vmdk")), 0o600))
	harness.Must(t, os.WriteFile(filepath.Join(filepath.Dir(image), "disk.vmdk"), []byte("a disk"), 0o600))
	for _, args := range [][]string{{"check-vmware"}, {"check-vmware", image}} {
		out, err := check(args...)
		if err != nil || strings.Contains(out, "FAIL") {
			t.Errorf("%q: got %v and\n%s", args, err, out)
		}
		for _, step := range []string{"connect", "clone", "start", "state", "suspend", "resume", "reset", "off", "destroy"} {
			if n := strings.Count(out, "pass "+step); n != 2 {
				t.Errorf("%q: step %s passed %d times, want it for two drivers:\n%s", args, step, n, out)
			}
		}
		wantContains(t, "the report", out, "vix\n", "vmrun\n", "M00001.lck", `"Shared":`)
	}
	harness.Must(t, os.WriteFile(filepath.Join(vixControl, "error.VixVM_Suspend"), []byte("3"), 0o600))
	out, err := check("check-vmware")
	if err == nil || !strings.Contains(out, "FAIL suspend") || !strings.Contains(out, "1 steps failed") {
		t.Errorf("with a step that fails: got %v and\n%s", err, out)
	}
	left, err := os.ReadDir(home)
	harness.Must(t, err)
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
