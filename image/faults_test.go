package image_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/image"
	"osx-builder/vm/vmtest/harness"
)

// faulty serves good with the faults of a story. n counts the requests from 1.
type faulty func(w http.ResponseWriter, r *http.Request, n int, good []byte)

// plain is a server without faults.
func plain(w http.ResponseWriter, r *http.Request, b []byte) {
	http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(string(b)))
}

// reset breaks the connection off as a crash of the server does.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// cutOff ends the connection after all that was written has arrived.
func cutOff(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.Close()
}

// some sends a head and the first n bytes of the body.
func some(w http.ResponseWriter, b []byte, n, length int) {
	w.Header().Set("Content-Length", itoa(length))
	_, _ = w.Write(b[:n])
	w.(http.Flusher).Flush()
}

// rest sends what a Range asks for, without validators.
func rest(w http.ResponseWriter, r *http.Request, b []byte) {
	var from int
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(b[from:])
}

// anyNumber of requests is fine.
const anyNumber = -1

// twentieths breaks every connection off after a twentieth of the image.
func twentieths(t *testing.T, cut func(http.ResponseWriter)) faulty {
	return func(w http.ResponseWriter, r *http.Request, n int, b []byte) {
		w.Header().Set("ETag", `"v1"`)
		if got := r.Header.Get("If-Range"); r.Header.Get("Range") != "" && got != `"v1"` {
			t.Errorf("request %d has If-Range %q", n, got)
		}
		plain(&brokenWriter{ResponseWriter: w, left: len(b)/20 + 1, cut: cut}, r, b)
	}
}

// Whatever a server does, the image arrives byte-identical, or the failure has
// its kind after the right number of requests.
func TestFaults(t *testing.T) {
	files := someFiles()
	good := gzipOf(t, tarOf(t, files...))
	other := gzipOf(t, tarOf(t, append([]file{{name: "mac/more", body: noise(5000, 5)}}, someFiles()...)...))
	half := len(good) / 2
	for title, tt := range stories(t, half, other) {
		t.Run(title, func(t *testing.T) {
			var mu sync.Mutex
			var requests int
			url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				requests++
				n := requests
				mu.Unlock()
				tt.serve(w, r, n, good)
			})
			c, dir := open(t, limits(func(l *image.Limits) { l.Stall, l.Idle = tt.stall, tt.idle }))
			before := descriptors(t)
			g, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, good)}, nil)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %v that says %q", err, tt.want, tt.text)
			}
			mu.Lock()
			defer mu.Unlock()
			if requests != tt.requests && tt.requests != anyNumber {
				t.Errorf("%d requests, want %d", requests, tt.requests)
			}
			if err == nil {
				wantFiles(t, g, files)
			} else {
				if strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), dir) {
					t.Errorf("error shows a secret or a path: %v", err)
				}
				wantEmpty(t, dir)
			}
			waitDescriptors(t, before)
		})
	}
}

// brokenWriter resets the connection after left bytes of body.
type brokenWriter struct {
	http.ResponseWriter
	left int
	cut  func(http.ResponseWriter)
}

func (b *brokenWriter) Write(p []byte) (int, error) {
	if len(p) <= b.left {
		b.left -= len(p)
		return b.ResponseWriter.Write(p)
	}
	n, _ := b.ResponseWriter.Write(p[:b.left])
	b.ResponseWriter.(http.Flusher).Flush()
	b.cut(b.ResponseWriter)
	return n, errors.New("reset by the test")
}

// descriptors counts this process's open files.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	must(t, err)
	return len(entries)
}

// descriptorTargets lists what the open files are, for a failure's message.
func descriptorTargets() (targets []string) {
	entries, _ := os.ReadDir("/dev/fd")
	for _, e := range entries {
		target, err := os.Readlink("/dev/fd/" + e.Name())
		targets = append(targets, fmt.Sprint(e.Name(), " ", target, err))
	}
	return targets
}

// waitDescriptors waits until there are no more open files than before; the
// server closes its connections a moment after the client.
func waitDescriptors(t testing.TB, want int) {
	t.Helper()
	deadline := time.Now().Add(harness.Timeout)
	for descriptors(t) > want {
		if time.Now().After(deadline) {
			t.Fatalf("%d open files, %d before: %q", descriptors(t), want, descriptorTargets())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A server that sends bytes one by one does not hold a download for ever: it
// counts as silent if it sends fewer than Limits.MinRate asks for.
func TestDrippingServer(t *testing.T) {
	good := gzipOf(t, tarOf(t, someFiles()...))
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		first := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(good)-1, len(good)))
			w.WriteHeader(http.StatusPartialContent)
		}
		for i := first; i < len(good); i++ {
			_, _ = w.Write(good[i : i+1])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(20 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	})
	c, _ := open(t, limits(func(l *image.Limits) { l.Stall, l.Idle = 300*time.Millisecond, 700*time.Millisecond }))
	_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, good)}, nil)
	if !errors.Is(err, image.ErrStalled) || !strings.Contains(err.Error(), "sends less than 1.0 KiB a second") {
		t.Errorf("got %v, want %v that names the rate", err, image.ErrStalled)
	}
}
