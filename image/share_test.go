package image_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/image"
)

// Many creations of one image share one download, and each sees its
// progress.
func TestOneDownloadHoweverManyAsk(t *testing.T) {
	b := gzipOf(t, tarOf(t, someFiles()...))
	var requests atomic.Int64
	all := make(chan struct{})
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		<-all
		_, _ = w.Write(b)
	})
	c, _ := open(t)
	src := image.Source{URL: url, Sum: sumOf(t, b)}
	var wg, reported sync.WaitGroup
	for range 10 {
		reported.Add(1)
		wg.Go(func() {
			var once sync.Once
			g, err := c.Ensure(t.Context(), src, func(image.Progress) { once.Do(reported.Done) })
			if err != nil || !strings.HasSuffix(g.VMX, "mac.vmx") {
				t.Errorf("got %v, %v", g, err)
			}
		})
	}
	reported.Wait()
	close(all)
	wg.Wait()
	if requests.Load() != 1 {
		t.Errorf("%d requests, want 1", requests.Load())
	}
}

// A waiter that leaves does not stop the others; when the last has left the
// work stops, and the next Ensure goes on where it stopped.
func TestWaitersLeave(t *testing.T) {
	b := gzipOf(t, tarOf(t, someFiles()...))
	var ranges []string
	gone := make(chan struct{})
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) > 1 {
			http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(string(b)))
			return
		}
		w.Header().Set("Last-Modified", time.Unix(1e9, 0).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", itoa(len(b)))
		_, _ = w.Write(b[:100_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})
	c, dir := open(t)
	src := image.Source{URL: url, Sum: sumOf(t, b)}

	first, leaveFirst := context.WithCancelCause(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	arrived := make(chan struct{}, 2)
	ensure := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		var once sync.Once
		go func() {
			_, err := c.Ensure(ctx, src, func(p image.Progress) {
				if p.Bytes == 100_000 && p.Total == int64(len(b)) {
					once.Do(func() { arrived <- struct{}{} })
				}
			})
			done <- err
		}()
		return done
	}
	firstDone, secondDone := ensure(first), ensure(second)
	<-arrived
	<-arrived
	tired := errors.New("tired")
	leaveFirst(tired)
	if err := <-firstDone; !errors.Is(err, tired) {
		t.Errorf("first waiter got %v, want its context's cause", err)
	}
	select {
	case <-gone:
		t.Fatal("download stopped with a waiter left")
	case err := <-secondDone:
		t.Fatalf("second waiter was ended by the first: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	leaveSecond()
	if err := <-secondDone; !errors.Is(err, context.Canceled) {
		t.Errorf("second waiter got %v, want context.Canceled", err)
	}
	<-gone
	g, err := c.Ensure(t.Context(), src, nil)
	must(t, err)
	wantFiles(t, g, someFiles())
	if diff := cmp.Diff([]string{"", "bytes=100000-"}, ranges); diff != "" {
		t.Errorf("ranges asked for (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"gold", "gold/" + src.Sum.String()}, ls(t, dir)); diff != "" {
		t.Errorf("cache folder (-want +got):\n%s", diff)
	}
}

// Two callers name two locations of one image: if one fails, the other's is
// tried, for both.
func TestAnotherCallersURLIsTried(t *testing.T) {
	b := gzipOf(t, tarOf(t, someFiles()...))
	good, _ := serve(t, b)
	asked, both := make(chan struct{}), make(chan struct{})
	bad := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-both
		http.Error(w, "gone", http.StatusGone)
	})
	c, _ := open(t)
	s := sumOf(t, b)
	done := make(chan error, 2)
	go func() {
		_, err := c.Ensure(t.Context(), image.Source{URL: bad, Sum: s}, nil)
		done <- err
	}()
	<-asked
	go func() {
		var once sync.Once
		_, err := c.Ensure(t.Context(), image.Source{URL: good, Sum: s}, func(image.Progress) { once.Do(func() { close(both) }) })
		done <- err
	}()
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("got %v, want none", err)
		}
	}
}

// A failure ends those who waited for it, and the next one tries again.
func TestAFailureDoesNotPoison(t *testing.T) {
	b := gzipOf(t, tarOf(t, someFiles()...))
	broken := true
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		if broken {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	})
	c, dir := open(t)
	src := image.Source{URL: url, Sum: sumOf(t, b)}
	_, err := c.Ensure(t.Context(), src, nil)
	if !errors.Is(err, image.ErrDownload) || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v, want ErrDownload with 404", err)
	}
	wantEmpty(t, dir)
	broken = false
	_, err = c.Ensure(t.Context(), src, nil)
	must(t, err)
}

func TestCloseEndsWaiters(t *testing.T) {
	url := serveFunc(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c, _ := open(t)
	src := image.Source{URL: url, Sum: sumOf(t, nil)}
	started, done := make(chan struct{}), make(chan error)
	go func() {
		var once sync.Once
		_, err := c.Ensure(t.Context(), src, func(image.Progress) { once.Do(func() { close(started) }) })
		done <- err
	}()
	<-started
	must(t, c.Close())
	if err := <-done; !errors.Is(err, image.ErrClosed) {
		t.Errorf("waiter got %v, want ErrClosed", err)
	}
	if _, err := c.Ensure(t.Context(), src, nil); !errors.Is(err, image.ErrClosed) {
		t.Errorf("late caller got %v, want ErrClosed", err)
	}
}
