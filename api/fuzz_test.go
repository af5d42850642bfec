package api_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"osx-builder/api"
	"osx-builder/vm"
)

// fuzzServer is a server that gets arbitrary requests.
type fuzzServer struct {
	*testServer
	log    *jsonLog
	lastID string // of the machine created last
	sent   int
}

// answerTimeout is the longest wait for an answer. Some requests are answered late on purpose, such as ?wait=.
const answerTimeout = 500 * time.Millisecond

func serveFuzz(t testing.TB) *fuzzServer {
	t.Helper()
	log := &jsonLog{}
	hosts, err := vm.NewHosts([]string{"127.0.0.1", "localhost"}, nil) // no request may leave this host
	must(t, err)
	c := config{
		api: api.Options{Log: slog.New(slog.NewJSONHandler(log, nil))},
		// A fuzz test may not fail from another goroutine.
		unchecked: true,

		vm: []func(*vm.Options){func(o *vm.Options) { o.Hosts, o.VMs = hosts, 20 }},
	}
	c.image.DialControl = hosts.Control
	return &fuzzServer{testServer: c.serve(t), log: log, lastID: "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489"}
}

// send sends a request and checks that the server neither panics nor returns 500. VMID, IMAGEURL and CHECKSUM in the
// request are replaced by a machine's ID and an image's URL and checksum.
func (s *fuzzServer) send(t testing.TB, method, path, header, body string) {
	fill := strings.NewReplacer("VMID", s.lastID, "IMAGEURL", s.image.URL, "CHECKSUM", s.image.Checksum)
	path, body = fill.Replace(path), fill.Replace(body)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(answerTimeout)))
	_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n\r\n%s", method, path, len(body), header, body)
	if strings.Contains(strings.ToLower(header), "transfer-encoding") {
		_ = c.(*net.TCPConn).CloseWrite() // otherwise the server would wait for the end of invalid chunks
	}
	if res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method}); err == nil {
		var text []byte
		if res.ContentLength > 0 { // otherwise it may be a stream, which does not end
			text, _ = io.ReadAll(io.LimitReader(res.Body, 1<<16))
		}
		if id, ok := strings.CutPrefix(res.Header.Get("Location"), "/vms/"); ok {
			s.lastID = id
		}
		if res.StatusCode == http.StatusInternalServerError {
			t.Errorf("%q %q, header %q, body %q: got 500 %s", method, path, header, body, text)
		}
	}
	if log := s.log.String(); strings.Contains(log, "panic") {
		t.Errorf("%q %q, header %q, body %q: the log has %s", method, path, header, body, log)
	}
	if s.sent++; s.sent%200 == 0 {
		s.destroyAll(t)
	}
}

// destroyAll destroys all machines and checks that nothing of them is left.
func (s *fuzzServer) destroyAll(t testing.TB) {
	list, err := s.vms.List(t.Context(), vm.Filter{}, vm.Owners{All: true})
	must(t, err)
	for _, v := range list {
		if err := s.vms.Destroy(t.Context(), v.ID); err != nil && !strings.Contains(err.Error(), string(vm.CodeNotFound)) {
			t.Errorf("destroying %s: %v", v.ID, err)
		}
	}
	left, err := os.ReadDir(s.dir)
	must(t, err)
	if left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".json") }); len(left) > 0 {
		t.Errorf("left of destroyed machines: %v", left) // records may stay until callbacks are delivered
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.text.Reset()
}

var (
	methods = []string{"GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE", "CONNECT", "get", "X"}
	paths   = []string{
		"/", "/vms", "/vms/", "/vms/VMID", "/vms/VMID/", "/vms/VMID/console", "/vms/VMID/console?tail=1", "/vms/VMID/screenshot", "/vms/VMID/power", "/vms/x", "/vms/%2e%2e",
		"/images", "/images/CHECKSUM", "/images/sha1-CHECKSUM", "/images/x", "/healthz", "/metrics", "/events", "/openapi.json", "/page/x", "//", "*", "/%00", "http://localhost/vms",
	}
	queries = []string{"", "?", "?wait=1ms", "?wait=-1", "?phase=ready", "?phase=x", "?status=powered-on", "?verbose=1", "?verbose=x", "?tail=9999999999999", "?follow=1", "?vm=x", "?%zz", "?a=1;b=2"}
	headers = []string{
		"X-A: a", "Content-Type: application/json", "Content-Type: text/plain", "Content-Type: ;", "Idempotency-Key: k", "Idempotency-Key: k\r\nIdempotency-Key: l", "Origin: null",
		"Sec-Fetch-Site: cross-site", "Authorization: Bearer x", "Accept: text/html", "Accept-Encoding: gzip", "Last-Event-ID: 0-0", "Expect: 100-continue", "Range: bytes=0-0", "If-None-Match: *",
		"X-Request-Id: \t", "Transfer-Encoding: chunked", "Upgrade: h2c\r\nConnection: upgrade", "Cookie: a=b; c", "Content-Encoding: gzip",
	}
	bodies = []string{
		"", "{}", "[]", "null", "{", `{"image":{"url":"IMAGEURL","checksum":"CHECKSUM","checksum_type":"sha1"}}`,
		`{"image":{"url":"IMAGEURL","checksum":"CHECKSUM","checksum_type":"sha1"},"cpus":1e99,"memory":"9999999999999gib"}`,
		`{"image":{"url":"IMAGEURL","checksum":"CHECKSUM","checksum_type":"sha1"},"callback_url":"http://\u0000","expires_in":"1ns"}`,
		`{"image":{"url":"IMAGEURL?x","checksum":"0000000000000000000000000000000000000000","checksum_type":"sha1"},"tools_init_timeout":-0.0}`,
		`{"expires_in": 60}`, `{"expires_in": {}}`, `{"action": "on"}`, `{"action": "reset"}`, `{"action": 1}`, "{\"image\":{}}//", "{\"cpus\":2,}", "\xff\xfe", strings.Repeat("[", 2000), `{"a":` + strings.Repeat("9", 500) + "}",
	}
)

// FuzzRoutes looks for a request that returns 500 or makes a handler panic.
func FuzzRoutes(f *testing.F) {
	s := serveFuzz(f)
	for i, path := range paths {
		f.Add(methods[i%len(methods)], path+queries[i%len(queries)], headers[i%len(headers)], bodies[i%len(bodies)])
		f.Add("GET", path, "", "")
		f.Add("POST", path, headers[1], bodies[5])
	}
	f.Fuzz(func(t *testing.T, method, path, header, body string) {
		s.send(t, method, path, header, body)
	})
}

// Random requests to every route, most of them almost valid.
func TestRandomRequests(t *testing.T) {
	s := serveFuzz(t)
	garbage := rapid.String()
	almostValid := func(list []string) *rapid.Generator[string] {
		valid := rapid.SampledFrom(list)
		return rapid.OneOf(valid, valid, valid, rapid.Custom(func(t *rapid.T) string { return valid.Draw(t, "valid") + garbage.Draw(t, "garbage") }))
	}
	rapid.Check(t, func(r *rapid.T) {
		for range 20 {
			s.send(t, almostValid(methods).Draw(r, "method"), almostValid(paths).Draw(r, "path")+almostValid(queries).Draw(r, "query"), almostValid(headers).Draw(r, "header"), almostValid(bodies).Draw(r, "body"))
		}
		if t.Failed() {
			r.FailNow()
		}
	})
	s.destroyAll(t)
}
