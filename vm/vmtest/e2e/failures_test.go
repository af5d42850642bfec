package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// badImage is an image that cannot be used.
type badImage struct {
	archive []byte
	want    vm.Code
	message string // a part of it
}

// badImages returns the images of TestBadImages. Those without an archive are served
// in a special way.
func badImages(t *testing.T) map[string]badImage {
	t.Helper()
	vmx := harness.VMX("d.vmdk")
	archive := func(files ...string) []byte { return harness.Archive(t, files...) }
	disk := func(vmdk string) []byte { return archive("a.vmx", vmx, "d.vmdk", vmdk) }
	return map[string]badImage{
		"not an archive":        {[]byte("<html>login</html>"), vm.CodeImageInvalid, ""},
		"no vmx":                {archive("readme", "hello"), vm.CodeImageInvalid, ".vmx"},
		"two vmx":               {archive("a.vmx", vmx, "b.vmx", vmx), vm.CodeImageInvalid, "b.vmx"},
		"disk missing":          {archive("a.vmx", harness.VMX("gone.vmdk")), vm.CodeImageInvalid, "gone.vmdk"},
		"extent missing":        {disk(harness.Descriptor("gone-flat.vmdk")), vm.CodeImageInvalid, "gone-flat.vmdk"},
		"truncated":             {archive("a.vmx", vmx)[:40], vm.CodeImageInvalid, ""},
		"traversal":             {archive("../../evil.vmx", vmx), vm.CodeImageUnsafe, "evil.vmx"},
		"absolute name":         {archive("/tmp/evil.vmx", vmx), vm.CodeImageUnsafe, "evil.vmx"},
		"link":                  {disk("-> /etc/passwd"), vm.CodeImageUnsafe, "d.vmdk"},
		"disk of the host":      {archive("a.vmx", harness.VMX("/dev/vda")), vm.CodeImageUnsafe, "/dev/vda"},
		"disk by URL":           {archive("a.vmx", harness.VMX("nbd:127.0.0.1:10809")), vm.CodeImageUnsafe, "nbd:"},
		"extent of the host":    {disk(harness.Descriptor("/etc/shadow")), vm.CodeImageUnsafe, "/etc/shadow"},
		"extent outside":        {disk(harness.Descriptor("../../x")), vm.CodeImageUnsafe, "../../x"},
		"raw disk named vmdk":   {disk(strings.Repeat("\x00", 8*512)), vm.CodeImageUnsafe, "d.vmdk"},
		"wrong checksum":        {nil, vm.CodeImageChecksum, strings.Repeat("0", 60)},
		"not found":             {nil, vm.CodeImageDownload, "404"},
		"server stops half way": {nil, vm.CodeImageDownload, "half"},
		"connection refused":    {nil, vm.CodeImageStalled, "refused"},
		"no data":               {nil, vm.CodeImageStalled, "4s"},
		"too large":             {disk(strings.Repeat("\x00", 41<<20)), vm.CodeImageTooLarge, "40 MiB"},
		"archive too large":     {randomDiskImage(t, "archive", 2<<20), vm.CodeImageArchive, "1.0 MiB"},
		"too many entries":      {archive("a.vmx", "", "b", "", "c", "", "d", "", "e", ""), vm.CodeImageEntries, "4"},
		"path too deep":         {archive("a/b/c/d", ""), vm.CodeImageDepth, "a/b/c/d"},
		"path too long":         {archive(strings.Repeat("x", 61), ""), vm.CodeImagePath, "xxx"},
		"ratio too high":        {disk(strings.Repeat("A", 24<<20)), vm.CodeImageRatio, "100"},
	}
}

// A machine of an invalid image fails with the code for the reason, in GET and in the
// callback, and no gold image is left.
func TestBadImages(t *testing.T) {
	t.Parallel()
	cases := badImages(t)
	s := harness.New(t, "-creations", "64", "-image-max-bytes", "40mib", "-image-max-download", "1mib",
		"-image-max-entries", "4", "-image-max-depth", "3", "-image-max-path", "60", "-image-max-ratio", "100",
		"-image-max-idle", "4s")
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, file string) {
		c := cases[strings.ReplaceAll(filepath.Base(file), "+", " ")]
		switch {
		case strings.Contains(file, "half"):
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(make([]byte, 500))
		case strings.Contains(file, "no+data"):
			<-r.Context().Done()
		case strings.Contains(file, "not+found"):
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write(c.archive)
		}
	}
	ids := make(map[string]string)
	for name, c := range cases {
		sum := sha256.Sum256(c.archive)
		i := e2e.Image{URL: s.Site.ImageURL(strings.ReplaceAll(name, " ", "+")), SHA256: hex.EncodeToString(sum[:])}
		switch name {
		case "wrong checksum", "not found", "server stops half way", "connection refused", "no data":
			i.SHA256 = strings.Repeat("0", 62) + fmt.Sprintf("%02d", len(name)) // of no image, different for each case
		}
		if name == "connection refused" {
			i.URL = "http://127.0.0.1:1/" + name[:1]
		}
		ids[name] = s.Create(i.Body(map[string]any{"callback_url": s.Site.CallbackURL()})).ID
	}
	posted := make(map[string]vm.VM)
	for range cases {
		v := s.NextCallback()
		posted[v.ID] = v
	}
	for name, c := range cases {
		v := s.Get(ids[name])
		if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != c.want || v.Status != "" {
			t.Errorf("%s: got phase %s, status %q, error %+v, want failed with %s", name, v.Phase, v.Status, v.Error, c.want)
			continue
		}
		if !strings.Contains(v.Error.Message, c.message) {
			t.Errorf("%s: the message does not contain %q: %s", name, c.message, v.Error.Message)
		}
		if p := posted[v.ID]; p.Error == nil || p.Error.Code != c.want {
			t.Errorf("%s: callback: got %+v, want %s", name, p.Error, c.want)
		}
		s.Destroy(v.ID)
	}
	left, _ := filepath.Glob(filepath.Join(s.Data, "images", "gold", "*"))
	if len(left) != 0 {
		t.Errorf("there are gold images: %v", left)
	}
}

// On a host without QEMU the daemon logs at its start which package is missing, and
// each creation fails with that message. With -driver qemu it does not start.
func TestWithoutQEMU(t *testing.T) {
	t.Parallel()
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PATH=") })
	env = append(env, "PATH="+t.TempDir())
	s := harness.NewEnv(t, env, "-driver", "auto")
	if !strings.Contains(s.Log(), "qemu-system-x86") {
		t.Errorf("the log does not name the package: %s", s.Log())
	}
	i := e2e.Image{URL: s.Site.ImageURL("x"), SHA256: strings.Repeat("a", 64)}
	a, err := s.Do("POST", "/vms", "application/json", i.Body(nil))
	harness.Must(t, err)
	var e vm.Error
	harness.Must(t, a.JSON(&e))
	if a.Status != http.StatusServiceUnavailable || e.Code != vm.CodeHypervisorUnavailable ||
		!strings.Contains(e.Message, "qemu-system-x86") {
		t.Errorf("POST: got %d %s, want 503 %s that names the package", a.Status, a.Body, vm.CodeHypervisorUnavailable)
	}
	if a, err = s.Do("GET", "/healthz", "", nil); err != nil || a.Status != http.StatusServiceUnavailable {
		t.Errorf("GET /healthz: got %d, %v, want 503", a.Status, err)
	}
	cmd := exec.Command(harness.Binary(t), "-driver", "qemu", "-data", t.TempDir(), "-listen", "127.0.0.1:0")
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "qemu-system-x86") {
		t.Errorf("-driver qemu: got %v, %s, want an error that names the package", err, out)
	}
}

// A second daemon on the same data folder fails with the URL of the first.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	out, err := exec.Command(harness.Binary(t), "-data", s.Data, "-listen", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), s.URL) || !strings.Contains(string(out), "-data") {
		t.Errorf("got %v, %s, want an error that names %s and -data", err, out, s.URL)
	}
}

// The daemon does not start with invalid settings, and the error names the setting.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep/", 20))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"deep data folder":  {[]string{"-data", deep}, "-data"},
		"open to all":       {[]string{"-listen", "0.0.0.0:0"}, "-insecure"},
		"no such driver":    {[]string{"-driver", "xen"}, "xen"},
		"no such flag":      {[]string{"-cpus", "2"}, "-cpus"},
		"port out of range": {[]string{"-forward", "70000"}, "70000"},
	} {
		args := append([]string{"-listen", "127.0.0.1:0", "-data", t.TempDir()}, c.args...)
		out, err := exec.Command(harness.Binary(t), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: got %v, %s, want an error that names %s", name, err, out, c.want)
		}
	}
}
