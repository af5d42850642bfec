package vm_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

func wantCode(t *testing.T, what string, err error, code vm.Code) {
	t.Helper()
	var known *vm.Error
	if !errors.As(err, &known) || known.Code != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// An image is listed with the number of machines that need it. It cannot be
// removed while there are any, and is downloaded again once it was removed.
func TestImageLife(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	if list, err := h.vms.Images().List(); err != nil || len(list) != 0 {
		t.Errorf("at first: got %v, %v, want no image", list, err)
	}
	one, two := h.create(q), h.create(q)
	h.wait(one.ID)
	h.wait(two.ID)
	list, err := h.vms.Images().List()
	must(t, err)
	if len(list) != 1 || list[0].Checksum != q.Image.Checksum || list[0].ChecksumType != "sha256" || list[0].URL != q.Image.URL ||
		list[0].VMs != 2 || list[0].Bytes == 0 || list[0].DiskBytes == 0 || list[0].CreatedAt.IsZero() || list[0].LastUsedAt.IsZero() {
		t.Fatalf("got %+v, want one image that two machines need", list)
	}
	must(t, h.vms.Destroy(t.Context(), one.ID))
	wantCode(t, "while a machine needs it", h.vms.Images().Remove(t.Context(), q.Image.Checksum), vm.CodeImageInUse)
	must(t, h.vms.Destroy(t.Context(), two.ID))
	if list, err = h.vms.Images().List(); err != nil || len(list) != 1 || list[0].VMs != 0 {
		t.Errorf("with no machine: got %+v, %v", list, err)
	}
	must(t, h.vms.Images().Remove(t.Context(), "SHA256-"+strings.ToUpper(q.Image.Checksum)))
	wantCode(t, "once removed", h.vms.Images().Remove(t.Context(), q.Image.Checksum), vm.CodeImageNotFound)
	for _, name := range []string{"", "x", "../" + q.Image.Checksum[3:]} {
		wantCode(t, name, h.vms.Images().Remove(t.Context(), name), vm.CodeInvalidField)
	}
	for _, name := range []string{q.Image.Checksum[1:], "sha1-" + q.Image.Checksum} {
		wantCode(t, name, h.vms.Images().Remove(t.Context(), name), vm.CodeImageNotFound)
	}
	h.wait(h.create(q).ID)
	if n := h.downloads.Load(); n != 2 {
		t.Errorf("got %d downloads, want 2: the image was removed between", n)
	}
}

// An image is in use while a machine waits for its download.
func TestImageInUseWhileDownloading(t *testing.T) {
	h := newHarness(t)
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
	wantCode(t, "while it is downloaded", h.vms.Images().Remove(t.Context(), q.Image.Checksum), vm.CodeImageInUse)
	close(finish)
	if v = h.wait(v.ID); v.Phase != vm.Ready {
		t.Errorf("got %s, want ready", v.Phase)
	}
}

// A creation that failed holds its image no longer.
func TestFailedCreationReleasesImage(t *testing.T) {
	h := newHarness(t).open()
	h.fail(vmtest.Start, errors.New("no"))
	q := h.request()
	if v := h.wait(h.create(q).ID); v.Phase != vm.Failed {
		t.Fatalf("got %s, want failed", v.Phase)
	}
	must(t, h.vms.Images().Remove(t.Context(), q.Image.Checksum))
}

// At its start the Manager holds the images of the machines that it finds. A
// machine that failed needs no image, one whose record is newer than this
// daemon does, and one whose record does not name its image holds them all.
func TestImagesAreHeldAfterStart(t *testing.T) {
	const id = "11111111-1111-4111-8111-111111111111"
	for _, c := range []struct {
		what, file, text string
		folder           bool
		want             int // -1 for an error
	}{
		{"under creation", ".json", `{"version": 2, "phase": "accepted", HEAD}`, false, 1},
		{"ready", ".json", `{"version": 2, "phase": "ready", HEAD}`, true, 1},
		{"being destroyed", ".json", `{"version": 2, "phase": "destroying", HEAD}`, true, 1},
		{"failed", ".json", `{"version": 2, "phase": "failed", HEAD}`, false, 0},
		{"failed, and left something", ".json", `{"version": 2, "phase": "failed", HEAD}`, true, 1},
		{"a tombstone", ".json", `{"version": 2, "phase": "destroying", "gone": true, HEAD}`, false, 0},
		{"of a newer daemon", ".json", `{"version": 99, "phase": "frozen", HEAD}`, true, 1},
		{"set aside", ".json.corrupt", `{"version": 2, "phase": "?", HEAD}`, true, 1},
		{"unreadable", ".json", `{"version": 2, "ph`, true, -1},
		{"without an image", ".json", `{"version": 99}`, true, -1},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newHarness(t).open()
			q := h.request()
			v := h.delivered(h.create(q).ID)
			must(t, h.vms.Destroy(t.Context(), v.ID))
			h.close()
			h.driver.Hook = func(ctx context.Context, _ vmtest.Step, _ vm.Machine) error {
				<-ctx.Done() // no job gets any further
				return ctx.Err()
			}
			head := fmt.Sprintf(`"id": %q, "spec": {"image": {"url": %q, "checksum_type": "sha256", "checksum": %q}}`, id, q.Image.URL, q.Image.Checksum)
			must(t, os.WriteFile(filepath.Join(h.dir, "vms", id+c.file), []byte(strings.ReplaceAll(c.text, "HEAD", head)), 0o600))
			if c.folder {
				must(t, os.Mkdir(filepath.Join(h.dir, "vms", id), 0o700))
			}
			h.open()
			list, err := h.vms.Images().List()
			if c.want < 0 {
				wantCode(t, "listing", err, vm.CodeOpen)
				wantCode(t, "removing", h.vms.Images().Remove(t.Context(), q.Image.Checksum), vm.CodeOpen)
				return
			}
			must(t, err)
			if len(list) != 1 || list[0].VMs != c.want {
				t.Fatalf("got %+v, want an image that %d machines need", list, c.want)
			}
			if err := h.vms.Images().Remove(t.Context(), q.Image.Checksum); c.want > 0 {
				wantCode(t, "removing", err, vm.CodeImageInUse)
			} else {
				must(t, err)
			}
		})
	}
}
