package e2e_test

import (
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
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmx"
)

// buildVIXDouble builds the double of VMware's library and returns its path.
func buildVIXDouble(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "libvix.so")
	if out, err := exec.Command(harness.Path(t, "vm/vix/testdata/libvix/build.sh"), path).CombinedOutput(); err != nil {
		t.Fatalf("building the double: %v\n%s", err, out)
	}
	return path
}

// vmware is a harness whose daemon uses the double of VMware's library.
type vmware struct {
	*harness.Harness
	control string // the folder with the settings of the double
}

func newVMware(t *testing.T) *vmware {
	t.Helper()
	control := t.TempDir()
	env := append(os.Environ(), "OSXB_VIX_DOUBLE="+control)
	return &vmware{harness.NewEnv(t, env, "-driver", "vix", "-vix-library", buildVIXDouble(t)), control}
}

// set writes a setting of the double. The content "" removes it.
func (w *vmware) set(name, content string) {
	w.T.Helper()
	path := filepath.Join(w.control, name)
	if content == "" {
		harness.Must(w.T, os.Remove(path))
		return
	}
	harness.Must(w.T, os.WriteFile(path, []byte(content), 0o600))
}

// glob lists the matching files of the images that were prepared for VMware.
func (w *vmware) glob(pattern string) []string {
	w.T.Helper()
	names, err := filepath.Glob(filepath.Join(w.Data, "images", "prepared", pattern))
	harness.Must(w.T, err)
	return names
}

// settings reads a machine's .vmx.
func (w *vmware) settings(id string) *vmx.File {
	w.T.Helper()
	f, err := vmx.Parse([]byte(harness.ReadFile(w.T, filepath.Join(w.Data, "vms", id, id+".vmx"))))
	harness.Must(w.T, err)
	return f
}

// exampleFields are the fields of the example responses in the project's description,
// in order.
var exampleFields = []string{
	"id", "image", "cpus", "memory", "tools_init_timeout", "launch_gui", "ip_address", "status", "guest_os",
}

// fields returns the names of a document's fields, in order.
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

// The example of the project's description, sent as it is written there, creates a
// machine in VMware. GET shows its live state, its callback is sent, and a DELETE
// removes all of it.
func TestVMwareLifecycle(t *testing.T) {
	t.Parallel()
	w := newVMware(t)
	i := w.Image(harness.TinyVM)
	body := w.ExampleRequest(i, "1gib")
	a, err := w.Do("POST", "/vms", "application/x-www-form-urlencoded", []byte(body))
	harness.Must(t, err)
	if got := fields(t, a.Body); a.Status != http.StatusAccepted || len(got) < 9 || !slices.Equal(got[:9], exampleFields) {
		t.Fatalf("POST: got %d with the fields %q, want 202 with %q first", a.Status, got, exampleFields)
	}
	var v vm.VM
	harness.Must(t, a.JSON(&v))
	if v.Memory != "1gib" || v.CPUs != 2 || !v.LaunchGUI || v.IPAddress != "" || v.Status != "" || v.GuestOS != "" {
		t.Errorf("POST: got %s", a.Body)
	}
	w.WaitReady(v.ID)
	v = w.WaitUntil(v.ID, "reachable", func(v vm.VM) bool { return v.IPAddress != "" && v.ToolsStatus == vm.ToolsRunning })
	if v.Hypervisor != "vix" || v.Status != vm.PoweredOn || v.CPUs != 2 || v.Memory != "1.0gib" ||
		v.GuestOS != "other5xlinux-64" || !strings.HasPrefix(v.IPAddress, "192.168.99.") ||
		!strings.HasPrefix(v.MACAddress, "00:0c:29:") {
		t.Errorf("GET: got %+v", v)
	}
	posted := w.NextCallback()
	ignore := cmpopts.IgnoreFields(vm.VM{}, "Callback", "ToolsStatus", "IPAddress", "Addresses")
	if diff := cmp.Diff(v, posted, ignore); diff != "" {
		t.Errorf("the callback's document differs from GET's (-GET +callback):\n%s", diff)
	}
	annotation, _ := w.settings(v.ID).Get("annotation")
	if !strings.Contains(annotation, i.URL) || !strings.Contains(annotation, i.SHA256) {
		t.Errorf("annotation: got %q, want the image's URL and checksum in it", annotation)
	}

	w.Destroy(v.ID)
	_, code, err := w.VM("GET", "/vms/"+v.ID, nil, http.StatusNotFound)
	harness.Must(t, err)
	if code != vm.CodeNotFound {
		t.Errorf("GET after the DELETE: got %s, want %s", code, vm.CodeNotFound)
	}
	if left := w.glob("*/vmware/clones/*"); len(left) != 0 {
		t.Errorf("the prepared image has the clones of destroyed machines: %q", left)
	}
	a, err = w.Do("DELETE", "/images/"+i.SHA256, "", nil)
	harness.Must(t, err)
	if left := w.glob("*"); a.Status != http.StatusNoContent || len(left) != 0 {
		t.Errorf("DELETE of the image: got %d %s, and the files %q are left", a.Status, a.Body, left)
	}
	harness.Must(t, w.Stop())
	for name, n := range w.stats() {
		if n != "0" && name != "jobs" {
			t.Errorf("VMware's library when the daemon ends: got %s %s, want none", n, name)
		}
	}
}

// stats returns the counters of the double.
func (w *vmware) stats() map[string]string {
	w.T.Helper()
	stats := make(map[string]string)
	for line := range strings.Lines(harness.ReadFile(w.T, filepath.Join(w.control, "stats"))) {
		if name, n, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			stats[name] = n
		}
	}
	return stats
}

// Machines in VMware outlive the daemon, and a daemon continues the creation that a
// killed daemon started.
func TestVMwareRecovery(t *testing.T) {
	t.Parallel()
	w := newVMware(t)
	w.set("tools.ms", "-1")
	w.set("ip.ms", "-1")
	v := w.Create(w.Image(harness.TinyVM).Body(harness.SmallVM(map[string]any{"callback_url": w.Site.CallbackURL()})))
	w.WaitUntil(v.ID, "waiting", func(v vm.VM) bool { return v.Phase == vm.Waiting })
	harness.Must(t, w.Kill())
	w.set("tools.ms", "0")
	w.set("ip.ms", "0")
	w.Start()
	before := w.WaitReady(v.ID)
	if posted := w.NextCallback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		t.Errorf("callback: got %+v, want the ready machine", posted)
	}
	harness.Must(t, w.Kill())
	w.Start()
	if after := w.Get(v.ID); after.Status != vm.PoweredOn || after.MACAddress != before.MACAddress {
		t.Errorf("after another crash: got %+v, want %+v", after, before)
	}
	w.Destroy(v.ID)
}

// If VMware returns an error, the machine fails with the error's code and VMware's
// message. It can be destroyed, and the next machine is created.
func TestVMwareErrors(t *testing.T) {
	t.Parallel()
	w := newVMware(t)
	i := w.Image(harness.TinyVM)
	for name, c := range map[string]struct {
		call, code string
		want       vm.Code
		message    string // a part of it
	}{
		"no licence":     {"VixVM_Clone", "32", vm.CodeHypervisorUnavailable, "licence"},
		"disk full":      {"VixVM_Clone", "8", vm.CodeDiskFull, "not enough disk space"},
		"locked":         {"VixVM_Clone", "15", vm.CodeOpen, "close it in VMware's window"},
		"damaged":        {"VixVM_PowerOn", "4002", vm.CodeOpen, ".vmx file is damaged"},
		"a dialog waits": {"VixVM_PowerOn", "3028", vm.CodeHypervisor, "dialog"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &vmware{w.WithT(t), w.control}
			w.set("error."+c.call, c.code)
			v := w.WaitSettled(w.Create(i.Body(harness.SmallVM(nil))).ID)
			if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != c.want {
				t.Fatalf("got phase %s with %+v, want failed with %s", v.Phase, v.Error, c.want)
			}
			wantContains(t, "its error", v.Error.Message, c.message, "(VIX error "+c.code+")")
			w.set("error."+c.call, "")
			w.Destroy(v.ID)
			w.Destroy(w.WaitReady(w.Create(i.Body(harness.SmallVM(nil))).ID).ID)
		})
	}
}

// GET of a machine that VMware does not let the daemon read is a conflict. Other
// machines are not affected, and the machine can be destroyed when VMware unlocks it.
func TestVMwareUnreadableMachine(t *testing.T) {
	t.Parallel()
	w := newVMware(t)
	i := w.Image(harness.TinyVM)
	locked, other := w.Create(i.Body(harness.SmallVM(nil))), w.Create(i.Body(harness.SmallVM(nil)))
	w.WaitReady(locked.ID)
	w.WaitReady(other.ID)
	for name, content := range map[string]string{
		"error.Vix_GetProperties": "15 -1 " + locked.ID,
		"hang.Vix_GetProperties":  locked.ID,
	} {
		w.set(name, content)
		_, code, err := w.VM("GET", "/vms/"+locked.ID, nil, http.StatusConflict)
		harness.Must(t, err)
		if code != vm.CodeOpen {
			t.Errorf("%s: got %s, want %s", name, code, vm.CodeOpen)
		}
		if v := w.Get(other.ID); v.Status != vm.PoweredOn {
			t.Errorf("%s: the other machine is %q, want powered-on", name, v.Status)
		}
		vms, err := w.List()
		harness.Must(t, err)
		if len(vms) != 2 || vms[0].Error == nil || vms[1].Error != nil {
			t.Errorf("%s: GET /vms: got %+v, want both machines, the first with an error", name, vms)
		}
		w.set(name, "")
	}
	w.Destroy(locked.ID)
}

// A URL in a request cannot add settings to the machine's .vmx.
func TestVMwareInjection(t *testing.T) {
	t.Parallel()
	w := newVMware(t)
	i := w.Image(harness.TinyVM)
	w.Site.Serve = func(rw http.ResponseWriter, r *http.Request, _ string) {
		http.ServeFile(rw, r, filepath.Join(harness.BuildDir(w.T), harness.TinyVM))
	}
	keys := func(i e2e.Image) []string {
		v := w.WaitReady(w.Create(i.Body(harness.SmallVM(nil))).ID)
		defer w.Destroy(v.ID)
		return slices.Sorted(slices.Values(w.settings(v.ID).Keys()))
	}
	want := keys(i)
	for _, name := range []string{
		`x" |22|0Afirmware = "efi`,
		`%22%0Afirmware%20=%20%22efi`,
		"#$|7C='\\\u2028\"firmware=\"efi",
	} {
		malicious := e2e.Image{URL: w.Site.ImageURL(name), SHA256: i.SHA256}
		if diff := cmp.Diff(want, keys(malicious)); diff != "" {
			t.Errorf("the .vmx for the URL %q has other keys (-want +got):\n%s", malicious.URL, diff)
		}
	}
}
