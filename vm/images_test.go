package vm_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/image"
	"osx-builder/vm"
)

func wantCode(t *testing.T, what string, err error, code vm.Code) {
	t.Helper()
	var known *vm.Error
	if !errors.As(err, &known) || known.Code != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// An image is listed with the machines that need it, cannot be removed while
// there are any, and is downloaded again once it was.
func TestImageLife(t *testing.T) {
	h := newHouse(t).open()
	q := h.request()
	if list, err := h.vms.CachedImages(); err != nil || len(list) != 0 {
		t.Errorf("at first: got %v, %v, want no image", list, err)
	}
	one, two := h.create(q), h.create(q)
	h.wait(one.ID)
	h.wait(two.ID)
	list, err := h.vms.CachedImages()
	must(t, err)
	if len(list) != 1 || list[0].Checksum != q.Image.Checksum || list[0].ChecksumType != "sha256" || list[0].URL != q.Image.URL ||
		list[0].VMs != 2 || list[0].Bytes == 0 || list[0].DiskBytes == 0 || list[0].CreatedAt.IsZero() || list[0].LastUsedAt.IsZero() {
		t.Fatalf("got %+v, want one image that two machines need", list)
	}
	must(t, h.vms.Destroy(t.Context(), one.ID))
	wantCode(t, "while a machine needs it", h.vms.RemoveImage(q.Image.Checksum), vm.CodeImageInUse)
	must(t, h.vms.Destroy(t.Context(), two.ID))
	if list, err = h.vms.CachedImages(); err != nil || len(list) != 1 || list[0].VMs != 0 {
		t.Errorf("with no machine: got %+v, %v", list, err)
	}
	must(t, h.vms.RemoveImage("SHA256-"+strings.ToUpper(q.Image.Checksum)))
	wantCode(t, "once removed", h.vms.RemoveImage(q.Image.Checksum), vm.CodeImageNotFound)
	for _, name := range []string{"", "x", q.Image.Checksum[1:], "sha1-" + q.Image.Checksum, "../" + q.Image.Checksum[3:]} {
		wantCode(t, name, h.vms.RemoveImage(name), vm.CodeInvalidField)
	}
	h.wait(h.create(q).ID)
	if n := h.downloads.Load(); n != 2 {
		t.Errorf("got %d downloads, want 2: the image was removed between", n)
	}
}

// While its download is waited for, an image that is not even there is in use.
func TestImageInUseWhileDownloading(t *testing.T) {
	h := newHouse(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	h.serve = func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		_, _ = w.Write(h.archive)
	}
	h.open()
	q := h.request()
	v := h.create(q)
	<-begun
	wantCode(t, "while it is downloaded", h.vms.RemoveImage(q.Image.Checksum), vm.CodeImageInUse)
	close(finish)
	if v = h.wait(v.ID); v.Phase != vm.Ready {
		t.Errorf("got %s, want ready", v.Phase)
	}
}

// A machine that failed needs no image, one whose record is newer than this
// daemon does, and one whose record tells nothing keeps them all.
func TestImagesInUse(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)) }
	const (
		head = `"id": "ID", "spec": {"image": {"url": "http://a/", "checksum_type": "md5", "checksum": "0123456789abcdef0123456789abcdef"}}`
		a    = "11111111-1111-4111-8111-111111111111"
	)
	sum := image.Sum{Type: "md5", Hex: "0123456789abcdef0123456789abcdef"}
	for _, c := range []struct {
		what, file, text string
		folder           bool
		want             int // -1 for an error
	}{
		{"under creation", a + ".json", `{"version": 2, "phase": "accepted", ` + head + `}`, false, 1},
		{"ready", a + ".json", `{"version": 2, "phase": "ready", ` + head + `}`, true, 1},
		{"being destroyed", a + ".json", `{"version": 2, "phase": "destroying", ` + head + `}`, true, 1},
		{"failed", a + ".json", `{"version": 2, "phase": "failed", ` + head + `}`, false, 0},
		{"failed, and left something", a + ".json", `{"version": 2, "phase": "failed", ` + head + `}`, true, 1},
		{"a tombstone", a + ".json", `{"version": 2, "phase": "destroying", "gone": true, ` + head + `}`, false, 0},
		{"of a newer daemon", a + ".json", `{"version": 99, "phase": "frozen", ` + head + `}`, true, 1},
		{"set aside", a + ".json.corrupt", `{"version": 2, "phase": "?", ` + head + `}`, true, 1},
		{"unreadable", a + ".json", `{"version": 2, "ph`, true, -1},
		{"without an image", a + ".json", `{"version": 99}`, true, -1},
	} {
		write(c.file, strings.ReplaceAll(c.text, "ID", a))
		if c.folder {
			must(t, os.Mkdir(filepath.Join(dir, a), 0o700))
		}
		used, err := vm.ImagesInUse(dir)
		switch {
		case c.want < 0:
			wantCode(t, c.what, err, vm.CodeOpen)
		case err != nil || used[sum] != c.want:
			t.Errorf("%s: got %v, %v, want %d", c.what, used, err, c.want)
		}
		must(t, os.RemoveAll(filepath.Join(dir, a)))
		must(t, os.Remove(filepath.Join(dir, c.file)))
	}
	if used, err := vm.ImagesInUse(filepath.Join(dir, "none")); err != nil || len(used) != 0 {
		t.Errorf("without a folder: got %v, %v, want none", used, err)
	}
}
