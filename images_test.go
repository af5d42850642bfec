package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
)

// images lists the cache as the daemon tells of it.
func (s *stage) images() []vm.CachedImage {
	s.t.Helper()
	a, err := s.Do("GET", "/images", "", nil)
	must(s.t, err)
	if a.Status != http.StatusOK {
		s.t.Fatalf("GET /images: got %d %s", a.Status, a.Body)
	}
	var list struct{ Images []vm.CachedImage }
	must(s.t, a.JSON(&list))
	return list.Images
}

// remove sends DELETE /images/:checksum and checks its answer.
func (s *stage) remove(checksum string, want int, code vm.Code) {
	s.t.Helper()
	_, got, err := s.VM("DELETE", "/images/"+checksum, nil, want)
	must(s.t, err)
	if got != code {
		s.t.Errorf("DELETE /images/%s: got code %q, want %q", checksum, got, code)
	}
}

// kept lists the files below images/.
func (s *stage) kept() (files []string) {
	s.t.Helper()
	must(s.t, filepath.WalkDir(filepath.Join(s.Data, "images"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	return files
}

// An image is kept for the next machine, cannot be removed below one, and
// leaves nothing when it is.
func TestImageCache(t *testing.T) {
	s := newStage(t)
	i := s.image(tinyvm)
	v := s.create(i.Body(small(nil)))
	s.remove(i.SHA256, http.StatusConflict, vm.CodeImageInUse)
	s.ready(v.ID)
	list := s.images()
	if len(list) != 1 || list[0].Checksum != i.SHA256 || list[0].URL != i.URL || list[0].VMs != 1 || list[0].DiskBytes == 0 {
		t.Fatalf("GET /images: got %+v, want the one image, with one machine", list)
	}
	s.remove(i.SHA256, http.StatusConflict, vm.CodeImageInUse)
	if prepared, _ := filepath.Glob(filepath.Join(s.Data, "images/prepared/sha256-"+i.SHA256+"/*.qcow2")); len(prepared) != 1 {
		t.Errorf("got prepared disks %v, want one", prepared)
	}
	must(t, s.Kill())
	s.start()
	s.remove(i.SHA256, http.StatusConflict, vm.CodeImageInUse)
	s.destroy(v.ID)
	if list = s.images(); len(list) != 1 || list[0].VMs != 0 {
		t.Errorf("GET /images: got %+v, want the one image, with no machine", list)
	}
	s.remove(i.SHA256, http.StatusNoContent, "")
	s.remove(i.SHA256, http.StatusNotFound, vm.CodeImageNotFound)
	s.remove("no-checksum", http.StatusBadRequest, vm.CodeInvalidField)
	if files := s.kept(); len(files) > 0 {
		t.Errorf("got %v, want no file", files)
	}
}

// noise is an image with a flat disk of that many bytes, which no compression
// makes smaller. It boots nothing.
func noise(t *testing.T, name string, bytes int) []byte {
	t.Helper()
	disk := make([]byte, bytes)
	seed := sha256.Sum256([]byte(name))
	_, _ = rand.NewChaCha8(seed).Read(disk)
	d := strings.Replace(descriptor("d-flat.vmdk"), "RW 8 ", "RW "+strconv.Itoa(bytes/512)+" ", 1)
	return packed(t, "a.vmx", vmxText("d.vmdk"), "d.vmdk", d, "d-flat.vmdk", string(disk))
}

// serve makes the site serve these archives, by their names.
func (s *stage) serve(archives map[string][]byte) {
	s.site.Serve = func(w http.ResponseWriter, _ *http.Request, file string) {
		_, _ = w.Write(archives[filepath.Base(file)])
	}
}

func (s *stage) served(name string, archive []byte) e2e.Image {
	sum := sha256.Sum256(archive)
	return e2e.Image{URL: s.site.ImageURL(name), SHA256: hex.EncodeToString(sum[:])}
}

// Beyond -cache-size, the least recently used image that no machine needs goes.
func TestCacheSize(t *testing.T) {
	const megabyte = 1 << 20
	archives := map[string][]byte{}
	for _, name := range []string{"one", "two", "three"} {
		archives[name] = noise(t, name, megabyte)
	}
	s := newStage(t, "-cache-size", "2500KiB")
	s.serve(archives)
	quick := small(map[string]any{"tools_init_timeout": 1})
	used := func(name string) vm.VM {
		return s.ready(s.create(s.served(name, archives[name]).Body(quick)).ID)
	}
	s.destroy(used("one").ID)
	two := used("two")
	s.destroy(used("one").ID)
	s.destroy(used("three").ID) // two is older, but needed
	var left []string
	for _, i := range s.images() {
		left = append(left, filepath.Base(i.URL))
	}
	if got := strings.Join(left, " "); got != "two three" {
		t.Errorf("got images %q, want two and three: the one that no machine needed went", got)
	}
	s.destroy(two.ID)
}

// A host that is denied is not asked, whatever the way to it.
func TestDeniedHosts(t *testing.T) {
	s := newStage(t, "-deny-hosts", "127.0.0.0/8,::1,evil.example")
	a := []byte("no image")
	for url, want := range map[string]struct {
		field string // of a refused request; "" for a machine that fails
	}{
		s.site.ImageURL("x"): {"image.url"},
		strings.Replace(s.site.ImageURL("x"), "127.0.0.1", "localhost", 1): {},
		"http://169.254.169.254/latest/meta-data/":                         {"image.url"},
		"http://[fd00:ec2::254]/":                                          {"image.url"},
		"http://EVIL.example/":                                             {"image.url"},
	} {
		i := s.served("x", a)
		i.URL = url
		if want.field == "" {
			v := s.settled(s.create(i.Body(small(nil))).ID)
			if v.Error == nil || v.Error.Code != vm.CodeHostDenied {
				t.Errorf("%s: got %+v, want %s", url, v.Error, vm.CodeHostDenied)
			}
			continue
		}
		ans, err := s.Do("POST", "/vms", "application/json", i.Body(small(nil)))
		must(t, err)
		var e vm.Error
		must(t, ans.JSON(&e))
		if ans.Status != http.StatusForbidden || e.Code != vm.CodeHostDenied || e.Field != want.field {
			t.Errorf("%s: got %d %s, want 403 %s of %s", url, ans.Status, ans.Body, vm.CodeHostDenied, want.field)
		}
	}
	if n := s.site.Gets("x"); n != 0 {
		t.Errorf("the denied host was asked %d times", n)
	}
}

// A disk too small for an image says so, keeps nothing of it, and has room for
// a smaller one.
func TestSmallDisk(t *testing.T) {
	s := newStage(t, "-disk-reserve", "8MiB")
	s.smallDisk("64m")
	archives := map[string][]byte{"large": noise(t, "large", 48<<20), "small": noise(t, "small", 16<<20)}
	s.serve(archives)
	quick := small(map[string]any{"tools_init_timeout": 1})
	for range 2 {
		v := s.settled(s.create(s.served("large", archives["large"]).Body(quick)).ID)
		if v.Error == nil || v.Error.Code != vm.CodeDiskFull {
			t.Fatalf("got %s %+v, want %s", v.Phase, v.Error, vm.CodeDiskFull)
		}
		s.destroy(v.ID)
	}
	for _, file := range s.kept() {
		if !strings.HasSuffix(file, ".part") && !strings.HasSuffix(file, ".part.json") {
			t.Errorf("%s is left of what did not fit", file)
		}
	}
	v := s.ready(s.create(s.served("small", archives["small"]).Body(quick)).ID)
	s.destroy(v.ID)
	if list := s.images(); len(list) != 1 || list[0].Checksum != s.served("small", archives["small"]).SHA256 {
		t.Errorf("got images %+v, want the small one", list)
	}
}

// smallDisk gives the daemon a data folder on a disk of its own.
func (s *stage) smallDisk(size string) {
	s.t.Helper()
	must(s.t, s.Stop())
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" && os.Getenv("GITHUB_ACTIONS") == "" {
			s.t.Fatal("this test mounts a tmpfs and needs root")
		}
		s.t.Skip("this test mounts a tmpfs and needs root")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", s.Data).CombinedOutput(); err != nil {
		s.t.Fatalf("mounting a tmpfs: %v: %s", err, out)
	}
	s.t.Cleanup(func() {
		s.clear()
		if out, err := exec.Command("umount", s.Data).CombinedOutput(); err != nil {
			s.t.Errorf("unmounting: %v: %s", err, out)
		}
	})
	s.start()
}
