package server_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osx-builder/api/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is a log that can be read while it is written.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// running is a server that serves.
type running struct {
	*server.Server
	t      *testing.T
	log    *text
	hangup chan os.Signal
	stop   func() error // once
}

// run serves h until the test ends or calls stop.
func run(t *testing.T, o server.Options, h http.HandlerFunc) *running {
	t.Helper()
	r := &running{t: t, log: &text{}, hangup: make(chan os.Signal)}
	o.Log = slog.New(slog.NewTextHandler(r.log, nil))
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Connections == 0 {
		o.Connections = 100
	}
	var err error
	r.Server, err = server.Listen(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- r.Serve(ctx, r.hangup, server.Service{Handler: h, Reload: func() error { return nil }, Stop: func() {}})
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		defer r.Close()
		return <-ended
	})
	t.Cleanup(func() { must(t, r.stop()) })
	return r
}

// reload sends SIGHUP, and waits until it was obeyed.
func (r *running) reload() {
	r.t.Helper()
	before := len(r.log.String())
	r.hangup <- syscall.SIGHUP
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if strings.Contains(r.log.String()[before:], "read anew") {
			return
		}
	}
	r.t.Fatalf("the log does not tell that it was read anew: %s", r.log)
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

// get asks over connections that dial opens.
func get(t *testing.T, url string, dial func() (net.Conn, error)) (status int, body string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial() },
	}}
	res, err := c.Get(url)
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(b)
}

// A Unix socket answers, lets its owner and group in, and goes with the server.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	r := run(t, server.Options{Listen: "unix:" + path}, hello)
	if r.URL() != "unix:"+path {
		t.Errorf("URL: got %s, want unix:%s", r.URL(), path)
	}
	info, err := os.Stat(path)
	must(t, err)
	if got := info.Mode().Perm(); got != 0o660 {
		t.Errorf("got mode %v, want 0660", got)
	}
	dial := func() (net.Conn, error) { return net.Dial("unix", path) }
	if status, body := get(t, "http://localhost/", dial); status != http.StatusOK || body != "hello" {
		t.Errorf("got %d %q, want 200 hello", status, body)
	}
	_, err = server.Listen(server.Options{Listen: "unix:" + path, Connections: 1})
	if err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second server: got %v, want it refused", err)
	}
	must(t, r.stop())
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("once it has stopped: got %v, want no socket", err)
	}
}

// The socket of a daemon that was killed is replaced; what is no socket stays.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	run(t, server.Options{Listen: "unix:" + path}, hello)
	if status, _ := get(t, "http://localhost/", func() (net.Conn, error) { return net.Dial("unix", path) }); status != http.StatusOK {
		t.Errorf("got %d, want 200", status)
	}
	file := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(file, []byte("mine"), 0o600))
	if _, err := server.Listen(server.Options{Listen: "unix:" + file}); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: got %v, want it refused", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "mine" {
		t.Errorf("the file is now %q", b)
	}
}

// The profiler is on its own address, shows nothing else, and to no web page.
func TestProfiler(t *testing.T) {
	r := run(t, server.Options{Debug: "127.0.0.1:0"}, hello)
	var at string
	for at == "" {
		if _, rest, ok := strings.Cut(r.log.String(), `profiler listening" url=http://`); ok {
			at, _, _ = strings.Cut(rest, "/")
		}
		time.Sleep(time.Millisecond)
	}
	_, port, _ := net.SplitHostPort(at)
	for _, c := range []struct {
		host, path, site string
		want             int
	}{
		{at, "/debug/pprof/", "", 200},
		{at, "/debug/pprof/heap?debug=1", "same-origin", 200},
		{"localhost:" + port, "/debug/pprof/cmdline", "none", 200},
		{at, "/", "", 404},
		{at, "/vms", "", 404},
		{"evil.example:" + port, "/debug/pprof/", "", 403},
		{at, "/debug/pprof/profile?seconds=1", "cross-site", 403},
	} {
		req, err := http.NewRequest("GET", "http://"+at+c.path, nil)
		must(t, err)
		req.Host = c.host
		if c.site != "" {
			req.Header.Set("Sec-Fetch-Site", c.site)
		}
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		must(t, res.Body.Close())
		if res.StatusCode != c.want {
			t.Errorf("%+v: got %d", c, res.StatusCode)
		}
	}
	if status, body := get(t, r.URL()+"/debug/pprof/", func() (net.Conn, error) { return net.Dial("tcp", strings.TrimPrefix(r.URL(), "http://")) }); body != "hello" {
		t.Errorf("on the API's address: got %d %q, want the API's answer", status, body)
	}
}

// Errors name the flag that is the way out.
func TestListenFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	taken, missing := l.Addr().String(), filepath.Join(t.TempDir(), "x")
	for want, o := range map[string]server.Options{
		"-listen":       {Listen: taken},
		"-debug-listen": {Listen: "127.0.0.1:0", Debug: taken},
		"-token-file":   {Listen: "127.0.0.1:0", TokenFile: missing},
		"-tls-cert":     {Listen: "127.0.0.1:0", TLSCert: missing, TLSKey: missing},
		"/s: ":          {Listen: "unix:" + missing + "/s"},
	} {
		o.Log = slog.New(slog.DiscardHandler)
		if _, err := server.Listen(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q in it", o, err, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
