package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// event is a Server-Sent Event.
type event struct{ id, name, data string }

// eventReader reads GET /events like a browser's EventSource.
type eventReader struct {
	s    *testServer
	body io.Closer
	r    *bufio.Reader
}

// openEvents opens a stream. The headers are pairs of name and value.
func (s *testServer) openEvents(query string, headers ...string) *eventReader {
	s.t.Helper()
	res := s.open("/events"+query, headers...)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		s.t.Fatalf("GET /events: got %d %v", res.StatusCode, res.Header)
	}
	l := &eventReader{s, res.Body, bufio.NewReader(res.Body)}
	if line, err := l.r.ReadString('\n'); err != nil || line != "retry: 2000\n" {
		s.t.Errorf("got first line %q, %v, want retry", line, err)
	}
	return l
}

// open sends a GET request and returns the answer while it is being sent. The test's end closes it.
func (s *testServer) open(path string, headers ...string) *http.Response {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), harness.Timeout)
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+path, nil)
	must(s.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	must(s.t, err)
	s.t.Cleanup(func() { cancel(); _ = res.Body.Close() })
	return res
}

// next reads the next event.
func (l *eventReader) next() (e event) {
	l.s.t.Helper()
	for {
		line, err := l.r.ReadString('\n')
		if err != nil {
			l.s.t.Fatalf("reading the stream: %v", err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if e.name != "" {
				return e
			}
		}
	}
}

// until reads up to an event of the name whose data contains text.
func (l *eventReader) until(name, text string) event {
	l.s.t.Helper()
	for {
		if e := l.next(); e.name == name && strings.Contains(e.data, text) {
			return e
		}
	}
}

// The stream starts with hello and then has the events of a machine's life, in the documented format.
func TestEvents(t *testing.T) {
	s := serve(t)
	l := s.openEvents("")
	hello := l.next()
	if hello.name != "hello" || hello.data != "{}" || !regexp.MustCompile(`^[0-9a-f]{16}-0$`).MatchString(hello.id) {
		t.Errorf("got %+v first, want hello", hello)
	}
	run, _, _ := strings.Cut(hello.id, "-")
	path := s.do("POST", "/vms", s.seedBody()).header.Get("Location")
	id := strings.TrimPrefix(path, "/vms/")
	first := l.next()
	want := regexp.MustCompile(`^\{"id":"` + id + `","phase":"accepted","status":"","at":"[0-9T:.-]+Z"\}$`)
	if first.name != "vm" || first.id != run+"-1" || !want.MatchString(first.data) {
		t.Errorf("got %+v, want event vm, ID %s-1, data %s", first, run, want)
	}
	ready := l.until("vm", `"phase":"ready"`)
	if !strings.Contains(ready.data, `"status":"powered-on"`) {
		t.Errorf("got %s, want powered-on", ready.data)
	}
	if a := s.do("GET", path, ""); !strings.Contains(a.body, `"phase": "ready"`) {
		t.Errorf("after the ready event GET returned %s", a.body)
	}
	s.do("DELETE", path, "")
	l.until("vm", `"phase":"destroying"`)
	end := l.next()
	if end.name != "gone" || !regexp.MustCompile(`^\{"id":"`+id+`","at":"[^"]+Z"\}$`).MatchString(end.data) {
		t.Errorf("got %+v, want gone", end)
	}

	again := s.openEvents("", "Last-Event-ID", ready.id)
	if e := again.next(); e.name != "vm" || !strings.Contains(e.data, `"phase":"destroying"`) {
		t.Errorf("after %s: got %+v, want the next event", ready.id, e)
	}
	if e := again.next(); e != end {
		t.Errorf("again: got %+v, want %+v", e, end)
	}
	for _, unknown := range []string{"0123456789abcdef-1", run + "-99", "x"} {
		if e := s.openEvents("", "Last-Event-ID", unknown).next(); e.name != "reset" || e.data != "{}" || e.id != end.id {
			t.Errorf("after %s: got %+v, want reset with ID %s", unknown, e, end.id)
		}
	}
}

// ?vm= selects the events of one machine. There is one gone event per machine.
func TestEventsOfOneMachine(t *testing.T) {
	s := serve(t)
	one := s.do("POST", "/vms", s.seedBody()).header.Get("Location")
	l := s.openEvents("?vm=" + strings.TrimPrefix(one, "/vms/"))
	l.until("hello", "{}")
	two := s.do("POST", "/vms", s.seedBody()).header.Get("Location")
	for _, path := range []string{two, one} {
		s.do("GET", path+"?wait=1m", "")
		s.do("DELETE", path, "")
	}
	for {
		e := l.next()
		var d struct{ ID string }
		must(t, json.Unmarshal([]byte(e.data), &d))
		if d.ID != strings.TrimPrefix(one, "/vms/") {
			t.Errorf("got %+v, want only events of %s", e, one)
		}
		if e.name == "gone" {
			break
		}
	}
	if a := s.do("GET", "/events?vm=x", ""); a.status != http.StatusNotFound || a.Code != vm.CodeNotFound {
		t.Errorf("?vm=x: got %d %s, want 404 %s", a.status, a.Code, vm.CodeNotFound)
	}
}

// The 65th client is refused as busy. After a client disconnects another one can connect.
func TestEventsLimit(t *testing.T) {
	s := serve(t)
	var all []*eventReader
	for range 64 {
		all = append(all, s.openEvents(""))
	}
	if a := s.do("GET", "/events", ""); a.status != http.StatusServiceUnavailable || a.Code != vm.CodeBusy || a.header.Get("Retry-After") == "" {
		t.Errorf("the 65th: got %d %s, want 503 %s", a.status, a.Code, vm.CodeBusy)
	}
	must(t, all[0].body.Close())
	s.waitForFreeStream()

	second := config{unchecked: true}.serve(t) // the check would read the body
	for range 64 {
		c, err := net.Dial("tcp", second.Listener.Addr().String())
		must(t, err)
		_, err = io.WriteString(c, "GET /events HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}")
		must(t, err)
		_, err = c.Read(make([]byte, 1))
		must(t, err)
		must(t, c.Close())
	}
	second.waitForFreeStream()
}

// waitForFreeStream waits until another client can open GET /events.
func (s *testServer) waitForFreeStream() {
	t := s.t
	t.Helper()
	for deadline := time.Now().Add(harness.Timeout); ; time.Sleep(10 * time.Millisecond) {
		res := s.open("/events")
		if res.StatusCode == http.StatusOK {
			break
		}
		must(t, res.Body.Close())
		if time.Now().After(deadline) {
			t.Fatal("a client has disconnected, and another one is still refused")
		}
	}
}

// A stream ends when the daemon stops, and does not delay it.
func TestEventsEndWithTheDaemon(t *testing.T) {
	s := serve(t)
	l := s.openEvents("")
	l.until("hello", "{}")
	s.Config.RegisterOnShutdown(s.vms.Close) // as main does
	ctx, cancel := context.WithTimeout(t.Context(), harness.Timeout)
	defer cancel()
	if err := s.Config.Shutdown(ctx); err != nil {
		t.Errorf("got %v, want the end of the stream", err)
	}
	if rest, err := io.ReadAll(l.r); err != nil || strings.Contains(string(rest), "event:") {
		t.Errorf("got %q, %v, want the end of the stream", rest, err)
	}
}
