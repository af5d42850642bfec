package probe_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"osx-builder/vm/probe"
)

// serve answers each connection and returns the address.
func serve(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return l.Addr().String()
}

// closedPort returns an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestCheckOfPort(t *testing.T) {
	silent := serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	greets := serve(t, func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-test\r\n")) })
	closes := serve(t, func(c net.Conn) { c.Close() })
	for name, tt := range map[string]struct {
		target probe.Target
		want   string // in the error; "" means none
	}{
		"accepts and is silent":       {probe.Target{Address: silent}, ""},
		"accepts and closes":          {probe.Target{Address: closes}, ""},
		"refuses":                     {probe.Target{Address: closedPort(t)}, "connection refused"},
		"forwarded, greets":           {probe.Target{Address: greets, Forwarded: true}, ""},
		"forwarded, accepts silently": {probe.Target{Address: silent, Forwarded: true}, ""},
		"forwarded, guest refuses":    {probe.Target{Address: closes, Forwarded: true}, "the guest closed the forwarded connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkError(t, probe.Check(t.Context(), tt.target), tt.want)
		})
	}
}

func TestCheckOfHTTP(t *testing.T) {
	mux := http.NewServeMux()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	mux.HandleFunc("/health", status(http.StatusOK))
	mux.HandleFunc("/empty", status(http.StatusNoContent))
	mux.HandleFunc("/starting", status(http.StatusServiceUnavailable))
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/starting", http.StatusFound) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", 100_000))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	at := strings.TrimPrefix(s.URL, "http://")
	for name, tt := range map[string]struct {
		target probe.Target
		want   string
	}{
		"200":          {probe.Target{Address: at, Path: "/health"}, ""},
		"204":          {probe.Target{Address: at, Path: "/empty"}, ""},
		"query":        {probe.Target{Address: at, Path: "/health?deep=1"}, ""},
		"302":          {probe.Target{Address: at, Path: "/moved"}, ""}, // and the 503 behind it is not asked for
		"404":          {probe.Target{Address: at, Path: "/none"}, "GET /none returned Not Found (404)"},
		"503":          {probe.Target{Address: at, Path: "/starting"}, "Service Unavailable (503)"},
		"large header": {probe.Target{Address: at, Path: "/large"}, "not HTTP"},
		"not HTTP":     {probe.Target{Address: serve(t, func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-test\r\n")); c.Close() }), Path: "/"}, "not HTTP"},
		"refused":      {probe.Target{Address: closedPort(t), Path: "/"}, "connection refused"},
		"never":        {probe.Target{Address: serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), Path: "/"}, "no answer within 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkError(t, probe.Check(t.Context(), tt.target), tt.want)
		})
	}
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got error %v, want %q", err, want)
	}
}
