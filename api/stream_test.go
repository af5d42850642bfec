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

// A stream without events has a keep-alive comment every 15 seconds, for hours. Each write has its own deadline,
// because the server's is for whole answers.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images, err := image.Open(filepath.Join(t.TempDir(), "images"), image.Options{})
		must(t, err)
		sender := callback.New(callback.Options{})
		vms, err := vm.Open(vm.Options{Dir: t.TempDir(), Driver: &vmtest.Driver{}, Images: images, Callbacks: sender})
		must(t, err)
		defer func() { vms.Close(); must(t, images.Close()); sender.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour+time.Second)
		defer cancel()
		w := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/events", nil)
		api.New(vms, api.Options{Log: slog.New(slog.DiscardHandler)}).ServeHTTP(w, r)
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
