package e2e_test

import (
	"bytes"
	"fmt"
	"image/png"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
)

// vsphereImage makes the site serve a small image for vSphere.
func vsphereImage(t *testing.T, h *harness.Harness) e2e.Image {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk.vmdk")
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "vmdk", disk, "4M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	text := harness.VMX("disk.vmdk") + "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\n"
	archive := harness.Archive(t, "small.vmx", text, "disk.vmdk", harness.ReadFile(t, disk))
	h.Serve(map[string][]byte{"small": archive})
	return h.ImageOf("small", archive)
}

// A vCenter in a process of its own: a machine from its image to its deletion, through the API of the built program.
func TestVSphere(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"vCenter": nil, "ESXi": {"-esx"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := vcenter.StartProcess(harness.VCenter(t), args...)
			harness.Must(t, err)
			t.Cleanup(func() { harness.Must(t, p.Close()) })
			h := harness.New(t, p.Flags...)
			i := vsphereImage(t, h)
			v := h.WaitReady(h.Create(i.Body(harness.SmallVM(map[string]any{"cpus": 2}))).ID)
			if v.Hypervisor != "vsphere" || v.Status != vm.PoweredOn || v.IPAddress == "" || v.CPUs != 2 || len(v.NICs) != 1 || v.GuestOS != "other" {
				t.Errorf("got %+v, want a machine that runs on vsphere", v)
			}
			list, err := h.List()
			if err != nil || len(list) != 1 || list[0].IPAddress != v.IPAddress {
				t.Errorf("got the list %+v, %v, want the machine", list, err)
			}
			checkVSphere(t, h, v, i)
			checkTogether(t, h, i)
			h.Destroy(v.ID)
			if _, code, err := h.VM("DELETE", "/images/"+i.SHA256, nil, http.StatusNoContent); err != nil {
				t.Errorf("removing the image: %v, code %s", err, code)
			}
			wantNoPassword(t, h)
		})
	}
}

// checkTogether lists and suspends machines side by side, while events are read. The daemon has the race detector, whose
// report fails the test. The simulator, which has data races of its own, runs in another process. Machines are created
// and destroyed one after the other: while changes are watched, the simulator blocks for ever if it adds or removes two at
// once (it locks a machine and a filter in both orders).
func checkTogether(t *testing.T, h *harness.Harness, i e2e.Image) {
	t.Helper()
	events, stop := plainClient{t, h.URL}.events()
	defer stop()
	var ids []string
	for range 6 {
		ids = append(ids, h.WaitReady(h.Create(i.Body(harness.SmallVM(nil))).ID).ID)
	}
	var group errgroup.Group
	for _, id := range ids {
		group.Go(func() error {
			for range 3 {
				if _, err := h.List(); err != nil {
					return err
				}
			}
			v, _, err := h.VM("POST", "/vms/"+id+"/power", []byte(`{"action": "suspend"}`), http.StatusOK)
			if err == nil && v.Status != vm.Suspended {
				return fmt.Errorf("got %+v, want it suspended", v)
			}
			return err
		})
	}
	harness.Must(t, group.Wait())
	for _, id := range ids {
		h.Destroy(id)
	}
	events.waitFor("gone")
}

// The daemon does not start if the service account lacks a privilege, and names it.
func TestVSpherePrivilege(t *testing.T) {
	t.Parallel()
	p, err := vcenter.StartProcess(harness.VCenter(t), "-without", "Network.Assign")
	harness.Must(t, err)
	t.Cleanup(func() { harness.Must(t, p.Close()) })
	d, err := e2e.Start(e2e.Options{Binary: harness.Binary(t), Data: harness.DataDir(t), Args: p.Flags})
	if err == nil {
		harness.Must(t, d.Stop())
	}
	if err == nil || !strings.Contains(err.Error(), "Network.Assign on the port groups") {
		t.Errorf("got %v, want the privilege", err)
	}
}

// checkVSphere reads what the API says of a machine that runs, and changes its power.
func checkVSphere(t *testing.T, h *harness.Harness, v vm.VM, i e2e.Image) {
	t.Helper()
	shot, err := h.Do("GET", "/vms/"+v.ID+"/screenshot", "", nil)
	harness.Must(t, err)
	if _, err := png.Decode(bytes.NewReader(shot.Body)); err != nil {
		t.Errorf("the screenshot: status %d, %v", shot.Status, err)
	}
	if _, code, err := h.VM("GET", "/vms/"+v.ID+"/console", nil, http.StatusNotImplemented); err != nil || code != vm.CodeNotSupported {
		t.Errorf("the console: got %v, code %s, want %s", err, code, vm.CodeNotSupported)
	}
	if _, code, err := h.VM("DELETE", "/images/"+i.SHA256, nil, http.StatusConflict); err != nil || code != vm.CodeImageInUse {
		t.Errorf("removing the image: got %v, code %s, want %s", err, code, vm.CodeImageInUse)
	}
	for _, step := range []struct {
		action string
		want   vm.Power
	}{{"suspend", vm.Suspended}, {"resume", vm.PoweredOn}, {"off", vm.PoweredOff}, {"on", vm.PoweredOn}} {
		got, _, err := h.VM("POST", "/vms/"+v.ID+"/power", []byte(`{"action": "`+step.action+`"}`), http.StatusOK)
		if err != nil || got.Status != step.want {
			t.Errorf("%s: got %q, %v, want %q", step.action, got.Status, err, step.want)
		}
	}
}

// wantNoPassword searches the password in everything that others may read.
func wantNoPassword(t *testing.T, h *harness.Harness) {
	t.Helper()
	texts := map[string]string{"log": h.Log()}
	for _, path := range []string{"/healthz?verbose=1", "/metrics", "/vms", "/images"} {
		a, err := h.Do("GET", path, "", nil)
		harness.Must(t, err)
		texts[path] = string(a.Body)
	}
	arguments, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(h.PID()), "cmdline"))
	if err == nil { // Linux only
		texts["process list"] = string(arguments)
	}
	harness.Must(t, filepath.WalkDir(h.Data, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			b, readErr := os.ReadFile(path)
			texts[path], err = string(b), readErr
		}
		return err
	}))
	for where, text := range texts {
		if strings.Contains(text, vcenter.Password) {
			t.Errorf("the password is in %s", where)
		}
	}
}
