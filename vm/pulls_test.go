package vm_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
)

// pull asks for the harness's image.
func (h *harness) pull() vm.CachedImage {
	h.t.Helper()
	i, err := h.vms.Images().Pull(h.t.Context(), h.imageRequest())
	must(h.t, err)
	return i
}

func (h *harness) imageRequest() vm.ImageRequest {
	i := h.request().Image
	return vm.ImageRequest{URL: i.URL, Checksum: i.Checksum, ChecksumType: i.ChecksumType}
}

// pulled returns the harness's image once its pull has ended.
func (h *harness) pulled() vm.CachedImage {
	h.t.Helper()
	i, err := h.vms.Images().Wait(h.t.Context(), h.request().Image.Checksum, hangTimeout)
	must(h.t, err)
	return i
}

// pullFiles lists the records of pulls and pins.
func (h *harness) pullFiles() (names []string) {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.dir, "pulls"))
	must(h.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// hold makes the web server wait in the middle of the image until release is called.
func (h *harness) holdDownload() (begun <-chan struct{}, release func()) {
	started, finish := make(chan struct{}, 10), make(chan struct{})
	h.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(h.archive)))
		_, _ = w.Write(h.archive[:len(h.archive)/2])
		_ = http.NewResponseController(w).Flush()
		started <- struct{}{}
		select {
		case <-finish:
			_, _ = w.Write(h.archive[len(h.archive)/2:])
		case <-r.Context().Done():
		}
	}
	return started, func() { close(finish) }
}

// A machine of an image that was pulled needs no download. A pull of an image that
// is there, or on its way, does nothing.
func TestPull(t *testing.T) {
	h := newHarness(t)
	begun, release := h.holdDownload()
	h.open()
	if i := h.pull(); i.Phase == vm.ImageReady || i.Phase == vm.ImageFailed || i.Checksum != h.request().Image.Checksum || i.CreatedAt.IsZero() {
		t.Errorf("got %+v, want a pull under way", i)
	}
	<-begun
	h.pull()
	v := h.create(h.request())
	list, err := h.vms.Images().List()
	must(t, err)
	if len(list) != 1 || list[0].Phase != vm.ImageDownloading || list[0].Progress == nil {
		t.Errorf("got %+v, want one image that is downloaded", list)
	}
	release()
	if i := h.pulled(); i.Phase != vm.ImageReady || i.Bytes == 0 || i.Pinned || i.Error != nil || i.Progress != nil {
		t.Errorf("got %+v, want it ready", i)
	}
	h.wait(v.ID)
	if i := h.pull(); i.Phase != vm.ImageReady || i.VMs != 1 {
		t.Errorf("got %+v, want it ready and needed by one machine", i)
	}
	if n := h.downloads.Load(); n != 1 {
		t.Errorf("got %d downloads, want 1", n)
	}
	if names := h.pullFiles(); len(names) > 0 {
		t.Errorf("left records: %v", names)
	}
}

// A pull that fails says why, also after a restart, until it is tried again.
func TestFailedPull(t *testing.T) {
	h := newHarness(t)
	missing := true
	h.serve = func(w http.ResponseWriter, _ *http.Request) {
		if missing {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(h.archive)
	}
	h.open()
	h.pull()
	check := func(when string) {
		t.Helper()
		if i := h.pulled(); i.Phase != vm.ImageFailed || i.Error == nil || i.Error.Code != vm.CodeImageDownload {
			t.Errorf("%s: got %+v, want failed with %s", when, i, vm.CodeImageDownload)
		}
	}
	check("at once")
	h.close()
	h.open()
	check("after a restart")
	missing = false
	h.pull()
	if i := h.pulled(); i.Phase != vm.ImageReady || len(h.pullFiles()) > 0 {
		t.Errorf("got %+v and records %v, want it ready and none", i, h.pullFiles())
	}
}

// A failed pull, or one under way, can be removed, and leaves nothing.
func TestRemovePull(t *testing.T) {
	h := newHarness(t)
	begun, _ := h.holdDownload()
	h.open()
	h.pull()
	<-begun
	ref := h.request().Image.Checksum[:8]
	must(t, h.vms.Images().Remove(t.Context(), ref))
	if _, err := h.vms.Images().Get(ref); codeOf(err) != vm.CodeImageNotFound {
		t.Errorf("got %v, want %s", err, vm.CodeImageNotFound)
	}
	left, err := filepath.Glob(filepath.Join(h.dir, "images", "*.part*"))
	must(t, err)
	if left = append(left, h.pullFiles()...); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A pull that the end of the daemon interrupts is continued by the next one, three
// times at most if the daemon crashes.
func TestPullIsContinued(t *testing.T) {
	h := newHarness(t)
	begun, release := h.holdDownload()
	h.open()
	h.pull()
	<-begun
	h.close()
	record := filepath.Join(h.dir, "pulls", h.pullFiles()[0])
	text, err := os.ReadFile(record)
	must(t, err)
	if !strings.Contains(string(text), `"attempts": 0`) {
		t.Errorf("an orderly stop counts as an attempt: %s", text)
	}
	must(t, os.WriteFile(record, []byte(strings.Replace(string(text), `"attempts": 0`, `"attempts": 3`, 1)), 0o600))
	h.open()
	if i := h.pulled(); i.Phase != vm.ImageFailed || i.Error.Code != vm.CodeAttempts {
		t.Errorf("got %+v, want failed with %s", i, vm.CodeAttempts)
	}
	h.close()
	must(t, os.WriteFile(record, text, 0o600))
	litter := filepath.Join(filepath.Dir(record), "."+filepath.Base(record)+"123")
	must(t, os.WriteFile(litter, text, 0o600))
	h.open()
	if _, err := os.Lstat(litter); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a temporary file of a record is still there: %v", err)
	}
	<-begun
	release()
	if i := h.pulled(); i.Phase != vm.ImageReady {
		t.Errorf("got %+v, want it ready", i)
	}
	h.close()
	for _, bad := range []string{"{", `{"version": 99}`, strings.Replace(string(text), "accepted", "x", 1), strings.Replace(string(text), h.request().Image.Checksum, "00", 1)} {
		must(t, os.WriteFile(record, []byte(bad), 0o600))
		h.open()
		if list, err := h.vms.Images().List(); err != nil || len(list) != 1 || list[0].Phase != vm.ImageReady {
			t.Errorf("%q: got %+v, %v, want the image alone", bad, list, err)
		}
		h.close()
	}
}

// A pinned image is not removed to make room; it can be removed by a client.
func TestPin(t *testing.T) {
	h := newHarness(t).open()
	h.pull()
	first := h.pulled()
	ref := first.Checksum
	i, err := h.vms.Images().Pin(ref, true)
	must(t, err)
	if !i.Pinned || i.VMs != 0 || i.Phase != vm.ImageReady {
		t.Errorf("got %+v, want it pinned and needed by no machine", i)
	}
	h.close()
	h.cacheBytes = 1
	h.open()
	h.archive = append(h.archive, make([]byte, 1024)...) // another checksum
	other := h.pull()
	if _, err := h.vms.Images().Wait(t.Context(), other.Checksum, hangTimeout); err != nil && codeOf(err) != vm.CodeImageNotFound {
		t.Error(err)
	}
	h.close()
	h.open()
	if i, err := h.vms.Images().Get(ref); err != nil || !i.Pinned {
		t.Errorf("after another image and a restart: got %+v, %v, want it pinned", i, err)
	}
	i, err = h.vms.Images().Pin(ref, false)
	if err != nil || i.Pinned || len(h.pullFiles()) > 0 {
		t.Errorf("got %+v, %v and records %v, want it without a pin", i, err, h.pullFiles())
	}
	_, err = h.vms.Images().Pin(ref, true)
	must(t, err)
	must(t, h.vms.Images().Remove(t.Context(), ref))
	if list, err := h.vms.Images().List(); err != nil || len(h.pullFiles()) > 0 || slices.ContainsFunc(list, func(i vm.CachedImage) bool { return i.Checksum == ref }) {
		t.Errorf("got %+v, %v and records %v, want the image gone", list, err, h.pullFiles())
	}
}

// While a machine needs a pinned image, it is not removed, and keeps its pin.
func TestPinnedImageInUse(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	ref := h.request().Image.Checksum
	_, err := h.vms.Images().Pin(ref, true)
	must(t, err)
	wantCode(t, "while a machine needs it", h.vms.Images().Remove(t.Context(), ref), vm.CodeImageInUse)
	if i, err := h.vms.Images().Get(ref); err != nil || !i.Pinned || i.VMs != 1 {
		t.Errorf("got %+v, %v, want it pinned and needed by one machine", i, err)
	}
	must(t, h.vms.Destroy(t.Context(), v.ID))
	must(t, h.vms.Images().Remove(t.Context(), ref))
}

// The hypervisor prepares an image that is pulled; if it cannot, the pull fails.
func TestPullPrepares(t *testing.T) {
	for _, failure := range []error{nil, &vm.Error{Code: vm.CodeImageInvalid, Message: "the disk is damaged"}} {
		h := newHarness(t)
		prepared := 0
		h.options = func(o *vm.Options) {
			o.Driver = preparingDriver{h.driver, func(_ context.Context, gold string) error {
				if _, err := os.Stat(gold); err != nil {
					t.Error(err)
				}
				prepared++
				return failure
			}}
		}
		h.open()
		h.pull()
		i := h.pulled()
		if prepared != 1 {
			t.Errorf("the driver prepared %d times, want once", prepared)
		}
		want := vm.ImageReady
		if failure != nil {
			want = vm.ImageFailed
		}
		if i.Phase != want || (i.Error != nil) != (failure != nil) {
			t.Errorf("got %+v, want phase %s", i, want)
		}
		h.close()
	}
}

func TestInvalidPull(t *testing.T) {
	h := newHarness(t).open()
	_, err := h.vms.Images().Pull(t.Context(), vm.ImageRequest{URL: "ftp://a/", ChecksumType: "crc32"})
	var e *vm.Error
	if !errors.As(err, &e) || len(e.Errors) != 3 || e.Errors[0].Field != "url" || e.Errors[1].Field != "checksum_type" || e.Errors[2].Field != "checksum" {
		t.Fatalf("got %+v, want errors for url, checksum_type and checksum", err)
	}
	for _, one := range e.Errors {
		if strings.Contains(one.Message, "image.") {
			t.Errorf("got message %q, want it to name %s", one.Message, one.Field)
		}
	}
}

// pullMost begins as many pulls as there may be at once, of images with the checksums 1 to 16.
func (h *harness) pullMost(begun <-chan struct{}) {
	h.t.Helper()
	q := h.imageRequest()
	for n := range 16 {
		q.Checksum = fmt.Sprintf("%064x", n+1)
		_, err := h.vms.Images().Pull(h.t.Context(), q)
		must(h.t, err)
		<-begun
	}
}

// At most 16 images are pulled at once.
func TestPullLimit(t *testing.T) {
	h := newHarness(t)
	begun, _ := h.holdDownload()
	h.open()
	h.pullMost(begun)
	q := h.imageRequest()
	q.Checksum = fmt.Sprintf("%064x", 99)
	_, err := h.vms.Images().Pull(t.Context(), q)
	wantCode(t, "one too many", err, vm.CodeBusy)
}

// preparingDriver is a driver that prepares images.
type preparingDriver struct {
	vm.Driver
	prepare func(ctx context.Context, gold string) error
}

func (d preparingDriver) PrepareImage(ctx context.Context, gold string) error {
	return d.prepare(ctx, gold)
}

// Pulls that end at once, while others are still being continued, get in nobody's way.
func TestManyPullsAreContinued(t *testing.T) {
	h := newHarness(t)
	begun, _ := h.holdDownload()
	h.open()
	h.pullMost(begun)
	h.close()
	h.serve = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }
	h.open()
	for n := range 16 {
		i, err := h.vms.Images().Wait(t.Context(), fmt.Sprintf("%064x", n+1), hangTimeout)
		must(t, err)
		if i.Phase != vm.ImageFailed {
			t.Errorf("got %+v, want it failed", i)
		}
	}
}
