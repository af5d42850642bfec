package image_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/image"
)

// abandoned leaves half of an image's download in dir.
func abandoned(t *testing.T, dir string, b []byte) image.Sum {
	t.Helper()
	c := openIn(t, dir)
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", itoa(len(b)))
		_, _ = w.Write(b[:len(b)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	s := sumOf(t, b)
	_, err := c.Ensure(ctx, image.Source{URL: url, Sum: s}, func(p image.Progress) {
		if p.Bytes > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	must(t, c.Close())
	return s
}

// A download that was interrupted is removed for the machine that needed it,
// unless another needs it too.
func TestRemoveDownload(t *testing.T) {
	c, dir := open(t)
	s := abandoned(t, dir, tarOf(t, someFiles()...))
	c.Hold("a machine", s)
	must(t, c.RemoveDownload(t.Context(), s))
	if diff := cmp.Diff([]string{"gold", s.String() + ".part", s.String() + ".part.json"}, ls(t, dir)); diff != "" {
		t.Errorf("with a machine that needs it (-want +got):\n%s", diff)
	}
	c.Release("a machine")
	must(t, c.RemoveDownload(t.Context(), s))
	wantEmpty(t, dir)
	must(t, c.RemoveDownload(t.Context(), s))
}

// A download that is being stopped is waited for, and one that somebody waits
// for stays.
func TestRemoveDownloadUnderWay(t *testing.T) {
	b := tarOf(t, someFiles()...)
	url, requests := serve(t, b)
	checking, checked := make(chan struct{}), make(chan struct{})
	c, dir := open(t, func(o *image.Options) {
		o.Check = func(*os.Root, string) error {
			checking <- struct{}{}
			<-checked
			return nil
		}
	})
	src := image.Source{URL: url, Sum: sumOf(t, b)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := c.Ensure(ctx, src, nil); ended <- err }()
	<-checking
	must(t, c.RemoveDownload(t.Context(), src.Sum))
	if got := strings.Join(ls(t, dir), " "); !strings.Contains(got, ".part") {
		t.Errorf("while somebody waits: got %s, want a download", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	tired := errors.New("tired")
	impatient, leave := context.WithCancelCause(t.Context())
	leave(tired)
	if err := c.RemoveDownload(impatient, src.Sum); !errors.Is(err, tired) {
		t.Errorf("got %v, want the context's cause", err)
	}
	removed := make(chan error, 1)
	go func() { removed <- c.RemoveDownload(t.Context(), src.Sum) }()
	checked <- struct{}{}
	must(t, <-removed)
	wantEmpty(t, dir)
	go func() { <-checking; checked <- struct{}{} }()
	_, err := c.Ensure(t.Context(), src, nil)
	must(t, err)
	if n := requests.Load(); n != 2 {
		t.Errorf("got %d requests, want 2: the download was removed", n)
	}
}

// A download that nobody has gone on with for a week goes when an image is
// added, not only at the next start.
func TestOldDownloadsExpire(t *testing.T) {
	c, dir := open(t)
	old := abandoned(t, dir, tarOf(t, someFiles()...))
	recent := abandoned(t, dir, tarOf(t, vmx("a.vmx"), file{name: "disk", body: noise(100_000, 5)}))
	s, _ := keep(t, c, 10)
	if got := strings.Join(ls(t, dir), " "); !strings.Contains(got, old.String()) {
		t.Fatalf("got %s, want the download of %s", got, old)
	}
	must(t, c.Remove(s))
	weeks := time.Now().Add(-8 * 24 * time.Hour)
	must(t, os.Chtimes(filepath.Join(dir, old.String()+".part"), weeks, weeks))
	keep(t, c, 10)
	if got := strings.Join(ls(t, dir), " "); strings.Contains(got, old.String()) || !strings.Contains(got, recent.String()) {
		t.Errorf("got %s, want the download of %s alone", got, recent)
	}
}
