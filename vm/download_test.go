package vm_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/image"
	"osx-builder/vm"
)

// downloading serves half of the image and then nothing more, and returns a
// function that waits until that half is on disk.
func (h *harness) downloading() (half func()) {
	h.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(h.archive)))
		_, _ = w.Write(h.archive[:len(h.archive)/2])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	return func() {
		h.t.Helper()
		for deadline := time.Now().Add(hangTimeout); ; time.Sleep(time.Millisecond) {
			info, err := os.Stat(filepath.Join(h.dir, "images", h.part()))
			if err == nil && info.Size() == int64(len(h.archive)/2) {
				return
			}
			if time.Now().After(deadline) {
				h.t.Fatalf("no download: %v", err)
			}
		}
	}
}

// part is the name of the download's file.
func (h *harness) part() string { return "sha256-" + h.request().Image.Checksum + ".part" }

// wantDownload checks whether a download, or any trace of one, is on disk.
func (h *harness) wantDownload(when string, want bool) {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.dir, "images"))
	must(h.t, err)
	var names []string
	for _, e := range entries {
		if e.Name() != "gold" {
			names = append(names, e.Name())
		}
	}
	if got := len(names) > 0; got != want {
		h.t.Errorf("%s: got %q, want a download: %v", when, names, want)
	}
}

// The destruction of a machine whose image is being downloaded removes the
// download, unless another machine needs it.
func TestDestroyRemovesTheDownload(t *testing.T) {
	h := newHarness(t)
	half := h.downloading()
	h.open()
	one, two := h.create(h.request()), h.create(h.request())
	half()
	must(t, h.vms.Destroy(t.Context(), one.ID))
	h.wantDownload("with another machine that waits", true)
	must(t, h.vms.Destroy(t.Context(), two.ID))
	h.wantDownload("without", false)
	h.serve = nil
	if v := h.wait(h.create(h.request()).ID); v.Phase != vm.Ready {
		t.Errorf("the next machine is %s, %+v", v.Phase, v.Error)
	}
}

// However a daemon ends between the beginning of a creation and the end of its
// destruction, nothing is left of the download after the destruction.
func TestDestroyRemovesTheDownloadAfterRestart(t *testing.T) {
	for name, edit := range map[string]func(record map[string]any){
		"killed during the creation":    func(r map[string]any) {},
		"killed too often":              func(r map[string]any) { r["attempts"] = 3 },
		"killed during the destruction": func(r map[string]any) { r["phase"] = "destroying" },
		"killed during the destruction, time being up": func(r map[string]any) {
			r["phase"], r["error"] = "destroying", map[string]any{"code": "expired", "message": "m"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			half := h.downloading()
			v := h.open().create(h.request())
			half()
			h.close()
			h.wantDownload("between the daemons", true)
			h.edit(v.ID, edit)
			h.open()
			if err := h.vms.Destroy(t.Context(), v.ID); err != nil && codeOf(err) != vm.CodeNotFound {
				t.Errorf("Destroy: %v", err)
			}
			h.wantDownload("after the destruction", false)
		})
	}
}

// A download that failed stays for the next request, as the machine's error says,
// even if that machine is destroyed first.
func TestFailedDownloadStays(t *testing.T) {
	h := newHarness(t)
	var ranges []string
	h.limits = image.Limits{Tries: 1, RetryWait: time.Millisecond}
	h.serve = func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) > 1 {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(h.archive)))
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(h.archive)))
		_, _ = w.Write(h.archive[:len(h.archive)/2])
	}
	h.open()
	v := h.wait(h.create(h.request()).ID)
	if v.Error == nil || v.Error.Code != vm.CodeImageDownload || !strings.Contains(v.Error.Message, "stay for the next request") {
		t.Fatalf("got %s, %+v, want %s", v.Phase, v.Error, vm.CodeImageDownload)
	}
	must(t, h.vms.Destroy(t.Context(), v.ID))
	h.wantDownload("after the destruction", true)
	if v = h.wait(h.create(h.request()).ID); v.Phase != vm.Ready {
		t.Errorf("got %s, %+v, want ready", v.Phase, v.Error)
	}
	if want := "bytes=" + strconv.Itoa(len(h.archive)/2) + "-"; len(ranges) != 2 || ranges[1] != want {
		t.Errorf("got ranges %q, want the second to be %s", ranges, want)
	}
}
