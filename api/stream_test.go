package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"osx-builder/api"
	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// deadlineRecorder records the write deadlines that a handler sets.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	timeouts []time.Duration
}

func (d *deadlineRecorder) SetWriteDeadline(t time.Time) error {
	d.timeouts = append(d.timeouts, time.Until(t))
	return nil
}

// openManager opens a manager with the in-memory driver for a synctest bubble.
func openManager(t *testing.T) *vm.Manager {
	t.Helper()
	images, err := image.Open(filepath.Join(vmtest.TempDir(t), "images"), image.Options{})
	must(t, err)
	sender := callback.New(callback.Options{})
	vms, err := vm.Open(vm.Options{Dir: t.TempDir(), Driver: &vmtest.Driver{}, Images: images, Callbacks: sender})
	must(t, err)
	t.Cleanup(func() { vms.Close(); must(t, images.Close()); sender.Close() })
	return vms
}

// streamEvents reads GET /events for a time.
func streamEvents(t *testing.T, vms *vm.Manager, query string, d time.Duration) *deadlineRecorder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	w := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/events"+query, nil)
	api.New(vms, api.Options{Log: slog.New(slog.DiscardHandler)}).ServeHTTP(w, r)
	return w
}

// A stream without events has a keep-alive comment every 15 seconds, for hours. Each write has its own deadline,
// because the server's is for whole answers.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := streamEvents(t, openManager(t), "", 2*time.Hour+time.Second)
		if n := strings.Count(w.Body.String(), ": keep-alive\n\n"); n != 4*60*2 {
			t.Errorf("got %d keep-alive comments in 2 hours, want %d", n, 4*60*2)
		}
		if len(w.timeouts) != 4*60*2+1 {
			t.Errorf("got %d deadlines, want one per write", len(w.timeouts))
		}
		for _, d := range w.timeouts {
			if d != 30*time.Second {
				t.Fatalf("got a deadline in %v, want 30 s", d)
			}
		}
	})
}

// The stream of one machine has keep-alive comments even if other machines have events all the time.
func TestKeepAliveOnBusyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vms := openManager(t)
		stop := make(chan struct{})
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Second):
				}
				v, err := vms.Create(t.Context(), vm.Request{Image: vm.Image{
					URL: "http://127.0.0.1:1/", Checksum: strings.Repeat("0", 32), ChecksumType: "md5",
				}}, "")
				if err == nil {
					err = vms.Destroy(t.Context(), v.ID)
				}
				if err != nil {
					t.Errorf("creating and destroying a machine: %v", err)
				}
			}
		}()
		const id = "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489"
		w := streamEvents(t, vms, "?vm="+id, 2*time.Minute+time.Second)
		close(stop)
		<-stopped
		if n := strings.Count(w.Body.String(), ": keep-alive\n\n"); n != 8 {
			t.Errorf("got %d keep-alive comments in 2 minutes, want 8", n)
		}
		if strings.Contains(w.Body.String(), "event: vm") {
			t.Errorf("got events of other machines: %s", w.Body)
		}
	})
}
