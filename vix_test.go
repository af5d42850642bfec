package main_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmx"
)

// libvix builds the double of VMware's library.
func libvix(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "libvix.so")
	if out, err := exec.Command("vm/vix/testdata/libvix/build.sh", path).CombinedOutput(); err != nil {
		t.Fatalf("building the double: %v\n%s", err, out)
	}
	return path
}

// vmware is a stage on VMware, which a double plays.
type vmware struct {
	*stage
	control string // the double's folder
}

func newVMware(t *testing.T) *vmware {
	t.Helper()
	control := t.TempDir()
	env := append(os.Environ(), "OSXB_VIX_DOUBLE="+control)
	return &vmware{newStageEnv(t, env, "-driver", "vix", "-vix-library", libvix(t)), control}
}

// set writes a file of the double's folder, "" removes it.
func (w *vmware) set(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.control, name)
	if content == "" {
		must(w.t, os.Remove(path))
		return
	}
	must(w.t, os.WriteFile(path, []byte(content), 0o600))
}

// glob lists what is below the folders of what was made of images for VMware.
func (w *vmware) glob(pattern string) []string {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.Data, "images", "prepared", pattern))
	must(w.t, err)
	return names
}

// settings reads a machine's .vmx.
func (w *vmware) settings(id string) *vmx.File {
	w.t.Helper()
	f, err := vmx.Parse([]byte(readFile(w.t, filepath.Join(w.Data, "vms", id, id+".vmx"))))
	must(w.t, err)
	return f
}

// seedFields are those of the answers in the project's first description, in
// their order.
var seedFields = []string{"id", "image", "cpus", "memory", "tools_init_timeout", "launch_gui", "ip_address", "status", "guest_os"}

// fields lists the names of a document, in order.
func fields(t *testing.T, doc []byte) (names []string) {
	t.Helper()
	for line := range strings.Lines(string(doc)) {
		name, _, found := strings.Cut(line, `":`)
		if found && strings.HasPrefix(name, `  "`) {
			names = append(names, strings.TrimPrefix(name, `  "`))
		}
	}
	return names
}

// The first example of all, sent as it was written, becomes a machine in
// VMware, is read back live, tells its callback and goes without a trace.
func TestVMwareLife(t *testing.T) {
	w := newVMware(t)
	i := w.image(tinyvm)
	body := w.firstExample(i, "1gib")
	a, err := w.Do("POST", "/vms", "application/x-www-form-urlencoded", []byte(body))
	must(t, err)
	if got := fields(t, a.Body); a.Status != http.StatusAccepted || len(got) < 9 || !slices.Equal(got[:9], seedFields) {
		t.Fatalf("POST: got %d with %q, want 202 with first %q", a.Status, got, seedFields)
	}
	var v vm.VM
	must(t, a.JSON(&v))
	if v.Memory != "1gib" || v.CPUs != 2 || !v.LaunchGUI || v.IPAddress != "" || v.Status != "" || v.GuestOS != "" {
		t.Errorf("POST: got %s", a.Body)
	}
	w.ready(v.ID)
	v = w.until(v.ID, "reachable", func(v vm.VM) bool { return v.IPAddress != "" && v.ToolsStatus == vm.ToolsRunning })
	if v.Hypervisor != "vix" || v.Status != vm.PoweredOn || v.CPUs != 2 || v.Memory != "1.0gib" || v.GuestOS != "other5xlinux-64" ||
		!strings.HasPrefix(v.IPAddress, "192.168.99.") || !strings.HasPrefix(v.MACAddress, "00:0c:29:") {
		t.Errorf("GET: got %+v", v)
	}
	posted := w.callback()
	ignore := cmpopts.IgnoreFields(vm.VM{}, "Callback", "ToolsStatus", "IPAddress", "Addresses")
	if diff := cmp.Diff(v, posted, ignore); diff != "" {
		t.Errorf("the callback's document differs from GET's (-GET +callback):\n%s", diff)
	}
	annotation, _ := w.settings(v.ID).Get("annotation")
	if !strings.Contains(annotation, i.URL) || !strings.Contains(annotation, i.SHA256) {
		t.Errorf("annotation: got %q, want the image's URL and checksum in it", annotation)
	}

	w.destroy(v.ID)
	_, code, err := w.VM("GET", "/vms/"+v.ID, nil, http.StatusNotFound)
	must(t, err)
	if code != vm.CodeNotFound {
		t.Errorf("GET once gone: got %s, want %s", code, vm.CodeNotFound)
	}
	if left := w.glob("*/vmware/clones/*"); len(left) != 0 {
		t.Errorf("the base remembers machines that are gone: %q", left)
	}
	a, err = w.Do("DELETE", "/images/"+i.SHA256, "", nil)
	must(t, err)
	if left := w.glob("*"); a.Status != http.StatusNoContent || len(left) != 0 {
		t.Errorf("the image removed: got %d %s, and left are %q", a.Status, a.Body, left)
	}
	must(t, w.Stop())
	for name, n := range w.stats() {
		if n != "0" && name != "jobs" {
			t.Errorf("VMware's library at the daemon's end: got %s %s, want none", n, name)
		}
	}
}

// stats reads the double's counters.
func (w *vmware) stats() map[string]string {
	w.t.Helper()
	stats := make(map[string]string)
	for line := range strings.Lines(readFile(w.t, filepath.Join(w.control, "stats"))) {
		if name, n, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			stats[name] = n
		}
	}
	return stats
}

// Machines in VMware outlive the daemon; what a killed one had begun goes on.
func TestVMwareRecovery(t *testing.T) {
	w := newVMware(t)
	w.set("tools.ms", "-1")
	w.set("ip.ms", "-1")
	v := w.create(w.image(tinyvm).Body(small(map[string]any{"callback_url": w.site.CallbackURL()})))
	w.until(v.ID, "waiting", func(v vm.VM) bool { return v.Phase == vm.Waiting })
	must(t, w.Kill())
	w.set("tools.ms", "0")
	w.set("ip.ms", "0")
	w.start()
	before := w.ready(v.ID)
	if posted := w.callback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		t.Errorf("callback: got %+v, want the machine, ready", posted)
	}
	must(t, w.Kill())
	w.start()
	if after := w.get(v.ID); after.Status != vm.PoweredOn || after.MACAddress != before.MACAddress {
		t.Errorf("after another crash: got %+v, want it as it was: %+v", after, before)
	}
	w.destroy(v.ID)
}

// What VMware refuses fails the machine with its code and VMware's own words,
// and nothing else: the machine can be destroyed, and the next one is made.
func TestVMwareRefuses(t *testing.T) {
	w := newVMware(t)
	i := w.image(tinyvm)
	for name, c := range map[string]struct {
		call, code string
		want       vm.Code
		says       string
	}{
		"no licence":     {"VixVM_Clone", "32", vm.CodeHypervisorUnavailable, "licence"},
		"disk full":      {"VixVM_Clone", "8", vm.CodeDiskFull, "not enough disk space"},
		"locked":         {"VixVM_Clone", "15", vm.CodeOpen, "close it in VMware's window"},
		"damaged":        {"VixVM_PowerOn", "4002", vm.CodeOpen, ".vmx file is damaged"},
		"a dialog waits": {"VixVM_PowerOn", "3028", vm.CodeHypervisor, "dialog"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &vmware{w.in(t), w.control}
			w.set("error."+c.call, c.code)
			v := w.settled(w.create(i.Body(small(nil))).ID)
			if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != c.want {
				t.Fatalf("got phase %s with %+v, want failed with %s", v.Phase, v.Error, c.want)
			}
			wantParts(t, "its error", v.Error.Message, c.says, "(VIX error "+c.code+")")
			w.set("error."+c.call, "")
			w.destroy(v.ID)
			w.destroy(w.ready(w.create(i.Body(small(nil))).ID).ID)
		})
	}
}

// A machine that VMware does not let be read answers 409 and gets in nobody's
// way; it can be destroyed once VMware lets go of it.
func TestVMwareUnreadable(t *testing.T) {
	w := newVMware(t)
	i := w.image(tinyvm)
	locked, other := w.create(i.Body(small(nil))), w.create(i.Body(small(nil)))
	w.ready(locked.ID)
	w.ready(other.ID)
	for name, content := range map[string]string{
		"error.Vix_GetProperties": "15 -1 " + locked.ID,
		"hang.Vix_GetProperties":  locked.ID,
	} {
		w.set(name, content)
		_, code, err := w.VM("GET", "/vms/"+locked.ID, nil, http.StatusConflict)
		must(t, err)
		if code != vm.CodeOpen {
			t.Errorf("%s: got %s, want %s", name, code, vm.CodeOpen)
		}
		if v := w.get(other.ID); v.Status != vm.PoweredOn {
			t.Errorf("%s: another machine is %q, want powered-on", name, v.Status)
		}
		a, err := w.Do("GET", "/vms", "", nil)
		must(t, err)
		var list struct{ VMs []vm.VM }
		must(t, json.Unmarshal(a.Body, &list))
		if len(list.VMs) != 2 || list.VMs[0].Error == nil || list.VMs[1].Error != nil {
			t.Errorf("%s: GET /vms: got %s, want both, and an error in the first", name, a.Body)
		}
		w.set(name, "")
	}
	w.destroy(locked.ID)
}

// Whatever a request says, it sets no line of the machine's .vmx but those
// that are its own.
func TestVMwareInjection(t *testing.T) {
	w := newVMware(t)
	i := w.image(tinyvm)
	w.site.Serve = func(rw http.ResponseWriter, r *http.Request, _ string) {
		http.ServeFile(rw, r, filepath.Join("build", tinyvm))
	}
	keys := func(i e2e.Image) []string {
		v := w.ready(w.create(i.Body(small(nil))).ID)
		defer w.destroy(v.ID)
		return slices.Sorted(slices.Values(w.settings(v.ID).Keys()))
	}
	clean := keys(i)
	for _, name := range []string{`x" |22|0Afirmware = "efi`, `%22%0Afirmware%20=%20%22efi`, "#$|7C='\\\u2028\"firmware=\"efi"} {
		hostile := e2e.Image{URL: w.site.ImageURL(name), SHA256: i.SHA256}
		if diff := cmp.Diff(clean, keys(hostile)); diff != "" {
			t.Errorf("from the URL %q the .vmx has other keys (-clean +hostile):\n%s", hostile.URL, diff)
		}
	}
}
