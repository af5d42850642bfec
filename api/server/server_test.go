package server_test

import (
	"context"
	"errors"
	"fmt"
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
	"osx-builder/config"
	"osx-builder/vm/vmtest/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv(limitedServerEnv) != "" {
		if err := limitedServer(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// logBuffer holds a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testServer is a server that is serving.
type testServer struct {
	*server.Server
	t      *testing.T
	log    *logBuffer
	hangup chan os.Signal
	stop   func() error // once
}

// startServer serves h until the test ends or calls stop.
func startServer(t *testing.T, o server.Options, h http.HandlerFunc) *testServer {
	t.Helper()
	s := &testServer{t: t, log: &logBuffer{}, hangup: make(chan os.Signal)}
	o.Log = slog.New(slog.NewTextHandler(s.log, nil))
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Connections == 0 {
		o.Connections = 100
	}
	var err error
	s.Server, err = server.Listen(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Serve(ctx, s.hangup, server.Service{Handler: h, Reload: func() error { return nil }, Stop: func() {}})
	}()
	s.stop = sync.OnceValue(func() error {
		cancel()
		defer s.Close()
		return <-ended
	})
	t.Cleanup(func() { must(t, s.stop()) })
	return s
}

// reload sends SIGHUP and waits until the server has reloaded.
func (s *testServer) reload() {
	s.t.Helper()
	before := len(s.log.String())
	s.hangup <- syscall.SIGHUP
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if strings.Contains(s.log.String()[before:], "reload") {
			return
		}
	}
	s.t.Fatalf("the log does not show that the server reloaded: %s", s.log)
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

// get sends a GET request over a connection that dial opens.
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

// A Unix socket answers, gives its owner and group access, and is removed when the server stops.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := startServer(t, server.Options{Listen: "unix:" + path}, hello)
	if s.URL() != "unix:"+path {
		t.Errorf("URL: got %s, want unix:%s", s.URL(), path)
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
	must(t, s.stop())
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the server stopped: got %v, want no socket", err)
	}
}

// The socket of a daemon that was killed is replaced. A file that is not a socket stays.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	startServer(t, server.Options{Listen: "unix:" + path}, hello)
	if status, _ := get(t, "http://localhost/", func() (net.Conn, error) { return net.Dial("unix", path) }); status != http.StatusOK {
		t.Errorf("got %d, want 200", status)
	}
	file := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(file, []byte("mine"), 0o600))
	if _, err := server.Listen(server.Options{Listen: "unix:" + file}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: got %v, want it refused", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "mine" {
		t.Errorf("the file is now %q", b)
	}
}

// The profiler has its own address, serves nothing else, and refuses web pages.
func TestProfiler(t *testing.T) {
	s := startServer(t, server.Options{Debug: "127.0.0.1:0"}, hello)
	var at string
	for at == "" {
		if _, rest, ok := strings.Cut(s.log.String(), `profiler listening" url=http://`); ok {
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
	if status, body := get(t, s.URL()+"/debug/pprof/", func() (net.Conn, error) { return net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://")) }); body != "hello" {
		t.Errorf("on the API's address: got %d %q, want the API's answer", status, body)
	}
}

// Errors name the flag that fixes them.
func TestListenFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	taken, missing := l.Addr().String(), filepath.Join(t.TempDir(), "x")
	for want, o := range map[string]server.Options{
		"-listen":       {Listen: taken},
		"-debug-listen": {Listen: "127.0.0.1:0", Debug: taken},
		"-token-file":   {Listen: "127.0.0.1:0", ReadTokens: config.SecretFile(missing, slog.New(slog.DiscardHandler))},
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
