package e2e_test

import (
	"crypto/sha256"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// listImages returns the images of GET /images.
func listImages(s *harness.Harness) []vm.CachedImage {
	s.T.Helper()
	a, err := s.Do("GET", "/images", "", nil)
	harness.Must(s.T, err)
	if a.Status != http.StatusOK {
		s.T.Fatalf("GET /images: got %d %s", a.Status, a.Body)
	}
	var list struct{ Images []vm.CachedImage }
	harness.Must(s.T, a.JSON(&list))
	return list.Images
}

// removeImage sends DELETE /images/:checksum and checks the response.
func removeImage(s *harness.Harness, checksum string, want int, code vm.Code) {
	s.T.Helper()
	_, got, err := s.VM("DELETE", "/images/"+checksum, nil, want)
	harness.Must(s.T, err)
	if got != code {
		s.T.Errorf("DELETE /images/%s: got code %q, want %q", checksum, got, code)
	}
}

// imageFiles lists the files below images/.
func imageFiles(s *harness.Harness) (files []string) {
	s.T.Helper()
	dir := filepath.Join(s.Data, "images")
	harness.Must(s.T, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	return files
}

// An image is kept for the next machine, cannot be removed while a machine uses it,
// and leaves no file after it is removed.
func TestImageCache(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	v := s.Create(i.Body(harness.SmallVM(nil)))
	removeImage(s, i.SHA256, http.StatusConflict, vm.CodeImageInUse)
	s.WaitReady(v.ID)
	list := listImages(s)
	if len(list) != 1 || list[0].Checksum != i.SHA256 || list[0].URL != i.URL || list[0].VMs != 1 ||
		list[0].DiskBytes == 0 {
		t.Fatalf("GET /images: got %+v, want the one image, with one machine", list)
	}
	removeImage(s, i.SHA256, http.StatusConflict, vm.CodeImageInUse)
	prepared, _ := filepath.Glob(filepath.Join(s.Data, "images/prepared/sha256-"+i.SHA256+"/*.qcow2"))
	if len(prepared) != 1 {
		t.Errorf("got prepared disks %v, want one", prepared)
	}
	harness.Must(t, s.Kill())
	s.Start()
	removeImage(s, i.SHA256, http.StatusConflict, vm.CodeImageInUse)
	s.Destroy(v.ID)
	if list = listImages(s); len(list) != 1 || list[0].VMs != 0 {
		t.Errorf("GET /images: got %+v, want the one image, with no machine", list)
	}
	removeImage(s, i.SHA256, http.StatusNoContent, "")
	removeImage(s, i.SHA256, http.StatusNotFound, vm.CodeImageNotFound)
	removeImage(s, "no-checksum", http.StatusBadRequest, vm.CodeInvalidField)
	if files := imageFiles(s); len(files) > 0 {
		t.Errorf("got %v, want no file", files)
	}
}

// randomDiskImage returns an image with a flat disk of random bytes, which cannot be
// compressed. It does not boot.
func randomDiskImage(t *testing.T, name string, bytes int) []byte {
	t.Helper()
	disk := make([]byte, bytes)
	seed := sha256.Sum256([]byte(name))
	_, _ = rand.NewChaCha8(seed).Read(disk)
	d := strings.Replace(harness.Descriptor("d-flat.vmdk"), "RW 8 ", "RW "+strconv.Itoa(bytes/512)+" ", 1)
	return harness.Archive(t, "a.vmx", harness.VMX("d.vmdk"), "d.vmdk", d, "d-flat.vmdk", string(disk))
}

// If the cache is larger than -cache-size, the least recently used image that no
// machine uses is removed.
func TestCacheSize(t *testing.T) {
	t.Parallel()
	const megabyte = 1 << 20
	archives := map[string][]byte{}
	for _, name := range []string{"one", "two", "three"} {
		archives[name] = randomDiskImage(t, name, megabyte)
	}
	s := harness.New(t, "-cache-size", "2500KiB")
	s.Serve(archives)
	fields := harness.SmallVM(map[string]any{"tools_init_timeout": 1}) // the guest does not boot
	create := func(name string) vm.VM {
		return s.WaitReady(s.Create(s.ImageOf(name, archives[name]).Body(fields)).ID)
	}
	s.Destroy(create("one").ID)
	two := create("two")
	s.Destroy(create("one").ID)
	s.Destroy(create("three").ID) // two was used before one, but is in use
	var left []string
	for _, i := range listImages(s) {
		left = append(left, filepath.Base(i.URL))
	}
	if got := strings.Join(left, " "); got != "two three" {
		t.Errorf("got images %q, want two and three, because no machine used one", got)
	}
	s.Destroy(two.ID)
}

// A denied host gets no request, however the URL names it.
func TestDeniedHosts(t *testing.T) {
	t.Parallel()
	s := harness.New(t, "-deny-hosts", "127.0.0.0/8,::1,evil.example")
	a := []byte("no image")
	for url, field := range map[string]string{ // the field of the error; "" if the machine fails instead
		s.Site.ImageURL("x"): "image.url",
		strings.Replace(s.Site.ImageURL("x"), "127.0.0.1", "localhost", 1): "",
		"http://169.254.169.254/latest/meta-data/":                         "image.url",
		"http://[fd00:ec2::254]/":                                          "image.url",
		"http://EVIL.example/":                                             "image.url",
	} {
		i := s.ImageOf("x", a)
		i.URL = url
		if field == "" {
			v := s.WaitSettled(s.Create(i.Body(harness.SmallVM(nil))).ID)
			if v.Error == nil || v.Error.Code != vm.CodeHostDenied {
				t.Errorf("%s: got %+v, want %s", url, v.Error, vm.CodeHostDenied)
			}
			continue
		}
		ans, err := s.Do("POST", "/vms", "application/json", i.Body(harness.SmallVM(nil)))
		harness.Must(t, err)
		var e vm.Error
		harness.Must(t, ans.JSON(&e))
		if ans.Status != http.StatusForbidden || e.Code != vm.CodeHostDenied || e.Field != field {
			t.Errorf("%s: got %d %s, want 403 %s of %s", url, ans.Status, ans.Body, vm.CodeHostDenied, field)
		}
	}
	if n := s.Site.Downloads("x"); n != 0 {
		t.Errorf("the denied host got %d requests", n)
	}
}

// Every hop of a redirect is checked like the URL of the request, also behind a
// proxy, where the dialled address is that of the proxy.
func TestDeniedRedirects(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var requested []string // URLs of denied hosts
	redirect := func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "good.example" {
			mu.Lock()
			requested = append(requested, r.URL.String())
			mu.Unlock()
		}
		http.Redirect(w, r, "http://"+r.URL.Query().Get("to")+"/secret", http.StatusFound)
	}
	proxy := httptest.NewServer(http.HandlerFunc(redirect))
	defer proxy.Close()
	env := append(os.Environ(), "HTTP_PROXY="+proxy.URL)
	s := harness.NewEnv(t, env, "-deny-hosts", "localhost,evil.example", "-creations", "64")
	s.Site.Serve = func(w http.ResponseWriter, r *http.Request, _ string) {
		http.Redirect(w, r, "http://localhost:1/", http.StatusFound)
	}
	for _, url := range []string{
		s.Site.ImageURL("x"),
		"http://good.example/?to=evil.example",
		"http://good.example/?to=EVIL.example.:80",
		"http://good.example/?to=169.254.169.254",
		"http://good.example/?to=[fd00:ec2::254]",
	} {
		i := s.ImageOf("x", []byte(url))
		i.URL = url
		v := s.WaitSettled(s.Create(i.Body(harness.SmallVM(nil))).ID)
		if v.Error == nil || v.Error.Code != vm.CodeHostDenied {
			t.Errorf("%s: got %s, %+v, want %s", url, v.Phase, v.Error, vm.CodeHostDenied)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(requested) > 0 {
		t.Errorf("denied hosts got requests: %q", requested)
	}
}

// If the disk is too small for an image, the machine fails, nothing but the download
// is kept, and there is space for a smaller image.
func TestSmallDisk(t *testing.T) {
	t.Parallel()
	s := harness.New(t, "-disk-reserve", "8MiB")
	s.MountSmallDisk("64m")
	archives := map[string][]byte{
		"large": randomDiskImage(t, "large", 48<<20),
		"small": randomDiskImage(t, "small", 16<<20),
	}
	s.Serve(archives)
	fields := harness.SmallVM(map[string]any{"tools_init_timeout": 1}) // the guest does not boot
	for range 2 {
		v := s.WaitSettled(s.Create(s.ImageOf("large", archives["large"]).Body(fields)).ID)
		if v.Error == nil || v.Error.Code != vm.CodeDiskFull {
			t.Fatalf("got %s %+v, want %s", v.Phase, v.Error, vm.CodeDiskFull)
		}
		s.Destroy(v.ID)
	}
	for _, file := range imageFiles(s) {
		if !strings.HasSuffix(file, ".part") && !strings.HasSuffix(file, ".part.json") {
			t.Errorf("%s is left of the large image", file)
		}
	}
	v := s.WaitReady(s.Create(s.ImageOf("small", archives["small"]).Body(fields)).ID)
	s.Destroy(v.ID)
	if list := listImages(s); len(list) != 1 || list[0].Checksum != s.ImageOf("small", archives["small"]).SHA256 {
		t.Errorf("got images %+v, want the small one", list)
	}
}
