package image_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"osx-builder/image"
)

// What a broken transfer brought is kept for the next Ensure, in this process
// or a later one, and nothing of it is downloaded twice.
func TestABrokenDownloadIsResumedLater(t *testing.T) {
	good := gzipOf(t, tarOf(t, someFiles()...))
	half := len(good) / 2
	var mu sync.Mutex
	var up bool
	var ranges []string
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		ranges = append(ranges, r.Header.Get("Range"))
		switch {
		case up:
			plain(w, r, good)
		case len(ranges) == 1:
			w.Header().Set("Last-Modified", time.Unix(1e9, 0).UTC().Format(http.TimeFormat))
			some(w, good, half, len(good))
			cutOff(w)
		default:
			reset(w)
		}
	})
	c, dir := open(t)
	src := image.Source{URL: url, Sum: sumOf(t, good)}
	_, err := c.Ensure(t.Context(), src, nil)
	if !errors.Is(err, image.ErrDownload) {
		t.Fatalf("got %v, want ErrDownload", err)
	}
	must(t, c.Close())
	mu.Lock()
	up, ranges = true, nil
	mu.Unlock()
	part, err := os.Stat(filepath.Join(dir, src.Sum.String()+".part"))
	must(t, err)
	c = openIn(t, dir)
	g, err := c.Ensure(t.Context(), src, nil)
	must(t, err)
	wantFiles(t, g, someFiles())
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) != 1 || part.Size() == 0 || ranges[0] != fmt.Sprintf("bytes=%d-", part.Size()) {
		t.Errorf("asked for %q, want the bytes from %d on, once", ranges, part.Size())
	}
	if got := len(ls(t, dir)); got != 2 {
		t.Errorf("%d names in the cache, want gold and the image: %v", got, ls(t, dir))
	}
}

// A leftover that is not the beginning of the image costs another download and
// nothing else, whatever it is.
func TestWrongLeftovers(t *testing.T) {
	good := gzipOf(t, tarOf(t, someFiles()...))
	for name, tt := range map[string]struct {
		part  []byte
		state string
	}{
		"other bytes, as many":  {part: noise(len(good), 8)},
		"other bytes, fewer":    {part: noise(len(good)/2, 8)},
		"other bytes, more":     {part: noise(len(good)*2, 8)},
		"the image and more":    {part: append(bytesOf(good), 1)},
		"the image":             {part: good},
		"a torn state":          {part: good[:1000], state: `{"origin":`},
		"a state of other type": {part: good[:1000], state: `{"hashed": 1000, "hash": "bWQ1AQ=="}`},
		"a state of more bytes": {part: good[:1000], state: `{"hashed": 2000, "hash": "bWQ1AQ=="}`},
		"a negative state":      {part: good[:1000], state: `{"hashed": -1, "hash": "bWQ1AQ==", "origin": {"total": -7}}`},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serve(t, good)
			src := image.Source{URL: url, Sum: sumOf(t, good)}
			c, dir := open(t)
			must(t, os.WriteFile(filepath.Join(dir, src.Sum.String()+".part"), tt.part, 0o600))
			must(t, os.WriteFile(filepath.Join(dir, src.Sum.String()+".part.json"), []byte(tt.state), 0o600))
			g, err := c.Ensure(t.Context(), src, nil)
			must(t, err)
			wantFiles(t, g, someFiles())
		})
	}
}

// An archive that is refused half way ends its Ensure at once, although the
// server has stopped sending and a decompressor waits for more.
func TestRefusedWhileTheServerStalls(t *testing.T) {
	bad := tarOf(t, file{name: "disk", body: noise(1<<20, 1)}, file{name: "../gotcha", body: noise(1<<20, 2)})[:7<<18]
	for name, b := range map[string][]byte{"tar": bad, "tar.gz": gzipOf(t, bad), "tar.bz2": bzip2Of(t, bad), "tar.zst": zstdOf(t, bad)} {
		t.Run(name, func(t *testing.T) {
			url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
				some(w, b, len(b)-100, len(b)+64<<20) // without what ends a compressed stream
				<-r.Context().Done()
			})
			c, dir := open(t, limits(func(l *image.Limits) { l.Stall, l.Idle = time.Hour, time.Hour }))
			_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil)
			if !errors.Is(err, image.ErrUnsafe) {
				t.Errorf("got %v, want ErrUnsafe", err)
			}
			wantEmpty(t, dir)
		})
	}
}

// Bytes that are no archive and that nobody asked for are called what a user
// can act on: another file.
func TestRefusedBeforeTheChecksum(t *testing.T) {
	page := noise(100_000, 1)
	url := serveFunc(t, func(w http.ResponseWriter, _ *http.Request) {
		some(w, page, 50_000, len(page))
		time.Sleep(50 * time.Millisecond) // the unpacker refuses what it has
		_, _ = w.Write(page[50_000:])
	})
	c, dir := open(t)
	_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, []byte("what was asked for"))}, nil)
	if !errors.Is(err, image.ErrChecksum) {
		t.Errorf("got %v, want ErrChecksum", err)
	}
	wantEmpty(t, dir)
}

func TestRetryAfterIsObeyed(t *testing.T) {
	good := gzipOf(t, tarOf(t, vmx("a.vmx")))
	var mu sync.Mutex
	var first time.Time
	var waited time.Duration
	url := serveFunc(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if first.IsZero() {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		waited = time.Since(first)
		plain(w, r, good)
	})
	c, _ := open(t)
	_, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, good)}, nil)
	must(t, err)
	mu.Lock()
	defer mu.Unlock()
	if waited < time.Second {
		t.Errorf("tried again after %v, want 1s", waited)
	}
}

func TestRefusedSources(t *testing.T) {
	sum := sumOf(t, nil)
	denied := errors.New("127.0.0.1 is not allowed here")
	c, dir := open(t, func(o *image.Options) {
		o.DialControl = func(_, address string, _ syscall.RawConn) error {
			if strings.HasPrefix(address, "127.0.0.1:") {
				return denied
			}
			return nil
		}
	})
	url, requests := serve(t, nil)
	for _, tt := range []struct{ url, text string }{
		{"ftp://host/x", "http or https"},
		{"file:///etc/passwd", "http or https"},
		{"/relative", "http or https"},
		{"http://user:hush@host/x", "user info"},
		{"http://%zz", "http or https"},
		{url, denied.Error()},
	} {
		_, err := c.Ensure(t.Context(), image.Source{URL: tt.url, Sum: sum}, nil)
		if !errors.Is(err, image.ErrDownload) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v, want ErrDownload that says %q", tt.url, err, tt.text)
		}
	}
	if requests.Load() != 0 {
		t.Error("a denied address was asked")
	}
	wantEmpty(t, dir)
}

// Redirects from https to http are refused, and the proxy variables honoured;
// both need a process with an environment of its own.
func TestEnvironment(t *testing.T) {
	good := gzipOf(t, tarOf(t, vmx("a.vmx")))
	sum := sumOf(t, good).String()
	plainURL, _ := serve(t, good)

	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/downgrade" {
			http.Redirect(w, r, plainURL, http.StatusFound)
			return
		}
		plain(w, r, good)
	}))
	t.Cleanup(secure.Close)
	cert := t.TempDir() + "/cert.pem"
	must(t, os.WriteFile(cert, pemOf(secure.Certificate().Raw), 0o600))
	t.Setenv("SSL_CERT_FILE", cert)
	t.Setenv("HTTP_PROXY", plainURL)

	for _, tt := range []struct{ name, url, want string }{
		{"https", secure.URL + "/image", ""},
		{"redirect from https to http", secure.URL + "/downgrade", "from https to http"},
		{"proxy", "http://image.invalid/image", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			out := runHelper(t, dir, tt.url, sum)
			if tt.want == "" && !strings.HasSuffix(out, "a.vmx\n") || !strings.Contains(out, tt.want) {
				t.Errorf("got %q, want %q", out, tt.want)
			}
			openIn(t, dir) // whose end clears the folder
		})
	}
}

// serveChunked serves b without saying how long it is.
func serveChunked(t testing.TB, b []byte) string {
	t.Helper()
	return serveFunc(t, func(w http.ResponseWriter, _ *http.Request) {
		for len(b) > 0 {
			n := min(len(b), 64<<10)
			if _, err := w.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
	})
}
