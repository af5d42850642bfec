package api_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/api"
	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// jsonLog is a log of JSON lines.
type jsonLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *jsonLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *jsonLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serveWithLog starts a server that logs at the debug level.
func serveWithLog(t *testing.T) (*testServer, *jsonLog) {
	t.Helper()
	l := &jsonLog{}
	log := slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := config{api: api.Options{Log: log, FindToken: findToken}}
	c.image.Log = log
	c.vm = append(c.vm, func(o *vm.Options) { o.Log = log })
	return c.serve(t), l
}

// find waits for a line with this message about a machine.
func (l *jsonLog) find(t *testing.T, msg, id string) map[string]any {
	t.Helper()
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(l.String()) {
			var fields map[string]any
			must(t, json.Unmarshal([]byte(line), &fields))
			if fields["msg"] == msg && fields["vm"] == id {
				return fields
			}
		}
	}
	t.Fatalf("no line %q of %s in %s", msg, id, l)
	return nil
}

const bearerToken = "Bearer " + secret

// The client's X-Request-Id is in the log lines of the job that the request started.
func TestRequestIDReachesTheJob(t *testing.T) {
	s, log := serveWithLog(t)
	a := s.do("POST", "/vms", s.bodyWith("callback_url", `"http://127.0.0.1:1/"`), "X-Request-Id", "build-7", "Authorization", bearerToken)
	path := a.header.Get("Location")
	id := strings.TrimPrefix(path, "/vms/")
	for _, msg := range []string{"creating", "ready", "callback"} {
		if got := log.find(t, msg, id)["request_id"]; got != "build-7" {
			t.Errorf("%s: got request_id %v, want build-7", msg, got)
		}
	}
	s.do("DELETE", path, "", "X-Request-Id", "clean-8", "Authorization", bearerToken)
	if got := log.find(t, "destroyed", id)["request_id"]; got != "clean-8" {
		t.Errorf("destroyed: got request_id %v, want clean-8", got)
	}
}

// Reads that succeed are logged at debug, and requests that change or refuse something at info. The line of a ready
// machine has its address.
func TestLogLevels(t *testing.T) {
	s, log := serveWithLog(t)
	path := s.do("POST", "/vms", s.seedBody(), "Authorization", bearerToken).header.Get("Location")
	if got := log.find(t, "ready", strings.TrimPrefix(path, "/vms/"))["address"]; got != "192.0.2.1" {
		t.Errorf("ready: got address %v, want the guest's", got)
	}
	for _, r := range []struct{ method, path, level string }{
		{"GET", "/vms", "DEBUG"},
		{"GET", path, "DEBUG"},
		{"GET", path + "/screenshot", "DEBUG"},
		{"GET", "/page/app.js", "DEBUG"},
		{"GET", "/none", "INFO"},
		{"POST", path + "/power", "INFO"},
		{"DELETE", path, "INFO"},
	} {
		id := strings.ReplaceAll(r.method+r.path, "/", ".")
		req, err := http.NewRequest(r.method, s.URL+r.path, nil)
		must(t, err)
		req.Header.Set("Authorization", bearerToken)
		req.Header.Set("X-Request-Id", id)
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		must(t, res.Body.Close())
		want := fmt.Sprintf(`"level":"%s","msg":"request","request_id":"%s"`, r.level, id)
		for deadline := time.Now().Add(harness.Timeout); !strings.Contains(log.String(), want); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no line %s in the log: %s", want, log)
			}
		}
	}
}

// No log line contains a token, or the query or password of a URL, even if everything fails.
func TestNoSecretIsLogged(t *testing.T) {
	s, log := serveWithLog(t)
	notFound := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(notFound.Close)
	host := strings.TrimPrefix(notFound.URL, "http://")
	callback := `"http://user:SECRET-1@` + host + `/?key=SECRET-2"`
	s.do("POST", "/vms?key=SECRET-4", s.seedBody())
	for _, url := range []string{s.image.URL + "?sig=SECRET-3", notFound.URL + "/i?sig=SECRET-3", "http://127.0.0.1:1/i?sig=SECRET-3"} {
		body := strings.Replace(s.bodyWith("callback_url", callback), s.image.URL, url, 1)
		a := s.do("POST", "/vms", body, "Authorization", bearerToken, "Idempotency-Key", url+"SECRET-5", "Cookie", "SECRET-6")
		if a.status != http.StatusAccepted {
			t.Fatalf("got %d %s", a.status, a.body)
		}
		id := strings.TrimPrefix(a.header.Get("Location"), "/vms/")
		if strings.Contains(url, host) || strings.Contains(url, s.image.URL) {
			log.find(t, "callback", id)
		}
		s.do("DELETE", "/vms/"+id, "", "Authorization", bearerToken)
	}
	s.do("POST", "/vms", `{"image": {"url": "http://u:SECRET-7@x/"}}`, "Authorization", bearerToken)
	s.do("GET", "/vms", "", "Authorization", "Bearer SECRET-8-0123456789")
	if found := regexp.MustCompile(`SECRET-\d|`+secret).FindAllString(log.String(), -1); len(found) > 0 {
		t.Errorf("the log contains %q: %s", slices.Compact(found), log)
	}
}

// A client's values cannot add a log line, and the length of a line is limited.
func TestLogInjection(t *testing.T) {
	s, log := serveWithLog(t)
	const forged = "\n" + `{"level":"INFO","msg":"forged"}` + "\n"
	s.do("GET", "/vms/%0a%7b%22level%22:%22INFO%22,%22msg%22:%22forged%22%7d%0a", "", "X-Request-Id", "a\tb", "Authorization", bearerToken)
	s.do("GET", "/"+strings.Repeat("x", 50_000), "", "Authorization", bearerToken)
	s.do(strings.Repeat("M", 50_000), "/vms", "", "Authorization", bearerToken)
	if strings.Contains(log.String(), forged) {
		t.Errorf("a client added a line: %s", log)
	}
	for line := range strings.Lines(log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || len(line) > 2000 {
			t.Errorf("got a line of %d bytes (%v): %.100s", len(line), err, line)
		}
	}
}

// A request ends when its client disconnects, even if the client sent a body with a request that needs none. Status 499
// records that there was no answer.
func TestClientDisconnects(t *testing.T) {
	s, log := serveWithLog(t)
	defer s.blockCloning()()
	path := s.do("POST", "/vms", s.seedBody(), "Authorization", bearerToken).header.Get("Location")
	for request, status := range map[string]int{path + "?wait=10m": 499, "/events": http.StatusOK} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		must(t, err)
		_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: 2\r\n\r\n{}", request, bearerToken)
		must(t, err)
		must(t, c.Close())
		path, _, _ := strings.Cut(request, "?")
		line := fmt.Sprintf(`"method":"GET","path":"%s","status":%d,`, path, status)
		for deadline := time.Now().Add(harness.Timeout); !strings.Contains(log.String(), line); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no line %s in the log: %s", line, log)
			}
		}
	}
}
