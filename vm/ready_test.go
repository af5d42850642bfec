package vm_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// service starts a service as of a guest and returns its port. It answers with 503
// as long as busy requests have not come.
func service(t *testing.T, busy int32) (port int, requests *atomic.Int32) {
	t.Helper()
	requests = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) <= busy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	must(t, err)
	port, err = strconv.Atoi(u.Port())
	must(t, err)
	return port, requests
}

// A machine is ready only when the service that the request names answers.
func TestReadyWhenServiceAnswers(t *testing.T) {
	h := newHarness(t)
	h.driver.Address = "127.0.0.1"
	h.open()
	port, requests := service(t, 3)
	q := h.request()
	q.ReadyWhen = &vm.ReadyWhen{Port: port, HTTP: "/health"}
	v := h.wait(h.create(q).ID)
	if v.Phase != vm.Ready || requests.Load() != 4 {
		t.Errorf("got phase %s after %d requests, want ready after 4", v.Phase, requests.Load())
	}
	if v.ReadyWhen == nil || *v.ReadyWhen != *q.ReadyWhen {
		t.Errorf("got ready_when %+v, want %+v", v.ReadyWhen, q.ReadyWhen)
	}
	q = h.request()
	q.ReadyWhen = &vm.ReadyWhen{Port: port}
	if v := h.wait(h.create(q).ID); v.Phase != vm.Ready {
		t.Errorf("got phase %s, error %v, want ready", v.Phase, v.Error)
	}
}

// A machine whose service never answers fails with the last reason and the end of
// the console, and nothing of it stays.
func TestNotReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed := l.Addr().(*net.TCPAddr).Port
	must(t, l.Close())
	busy, _ := service(t, 1<<30)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // whose clients are never accepted
	must(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	for name, tt := range map[string]struct {
		set     func(*vmtest.Driver)
		when    vm.ReadyWhen
		message string
	}{
		"refused":    {func(*vmtest.Driver) {}, vm.ReadyWhen{Port: closed}, "connection refused"},
		"busy":       {func(*vmtest.Driver) {}, vm.ReadyWhen{Port: busy, HTTP: "/health"}, "Service Unavailable"},
		"silent":     {func(*vmtest.Driver) {}, vm.ReadyWhen{Port: silent.Addr().(*net.TCPAddr).Port, HTTP: "/"}, "within 1s: no answer;"},
		"no address": {func(d *vmtest.Driver) { d.NoAddress = true }, vm.ReadyWhen{Port: busy}, "the guest had no address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.driver.Address = "127.0.0.1"
			tt.set(h.driver)
			h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
				if s == vmtest.Start {
					return os.WriteFile(filepath.Join(m.Dir, "serial.log"), []byte("booting\x1b[0m\nmy service: no such file\n"), 0o600)
				}
				return nil
			}
			h.open()
			q := h.request()
			q.ReadyWhen, q.ReadyTimeout = &tt.when, vm.ReadyTimeout(time.Second)
			v := h.wait(h.create(q).ID)
			if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != vm.CodeGuestNotReady || v.Status != "" {
				t.Fatalf("got phase %s, error %v, want failed with %s", v.Phase, v.Error, vm.CodeGuestNotReady)
			}
			if !strings.Contains(v.Error.Message, tt.message) || !strings.Contains(v.Error.Message, "ready_timeout") {
				t.Errorf("got message %q, want %q and the way out", v.Error.Message, tt.message)
			}
			if want := "booting[0m\nmy service: no such file"; v.Error.Console != want {
				t.Errorf("got console %q, want %q", v.Error.Console, want)
			}
			if posted := h.callback(); posted.Error == nil || posted.Error.Console != v.Error.Console {
				t.Errorf("callback: got %+v, want %+v", posted.Error, v.Error)
			}
			h.close()
			if names := h.files(); !slices.Equal(names, []string{v.ID + ".json"}) {
				t.Errorf("left: %v, want the record alone", names)
			}
		})
	}
}

// A guest that shuts down while its service is waited for fails at once.
func TestGuestStopsBeforeItsServiceAnswers(t *testing.T) {
	h := newHarness(t)
	h.driver.Address = "127.0.0.1"
	h.stopGuest()
	h.open()
	q := h.request()
	q.ReadyWhen = &vm.ReadyWhen{Port: 1}
	if v := h.wait(h.create(q).ID); v.Error == nil || v.Error.Code != vm.CodeGuestStopped {
		t.Errorf("got error %v, want %s", v.Error, vm.CodeGuestStopped)
	}
}

// The host reaches the port of a guest that has no address of its own.
func TestReadyPortIsForwarded(t *testing.T) {
	h := newHarness(t)
	got := make(chan []int, 1)
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		if s == vmtest.Start {
			got <- m.Forward
		}
		return nil
	}
	h.driver.Address = "127.0.0.1"
	h.open()
	port, _ := service(t, 0)
	q := h.request()
	q.Forward, q.ReadyWhen = []int{8080}, &vm.ReadyWhen{Port: port}
	h.wait(h.create(q).ID)
	if ports := <-got; !slices.Equal(ports, []int{8080, port}) {
		t.Errorf("got forwarded ports %v, want 8080 and %d", ports, port)
	}
}

func TestInvalidReadyWhen(t *testing.T) {
	h := newHarness(t).open()
	for name, tt := range map[string]struct {
		when    *vm.ReadyWhen
		timeout time.Duration
		field   string
	}{
		"no port":             {&vm.ReadyWhen{HTTP: "/"}, 0, "ready_when.port"},
		"port too large":      {&vm.ReadyWhen{Port: 65536}, 0, "ready_when.port"},
		"not a path":          {&vm.ReadyWhen{Port: 80, HTTP: "health"}, 0, "ready_when.http"},
		"a URL":               {&vm.ReadyWhen{Port: 80, HTTP: "http://example.com/"}, 0, "ready_when.http"},
		"a line break":        {&vm.ReadyWhen{Port: 80, HTTP: "/a\r\nHost: b"}, 0, "ready_when.http"},
		"timeout too long":    {&vm.ReadyWhen{Port: 80}, 2 * time.Hour, "ready_timeout"},
		"negative timeout":    {&vm.ReadyWhen{Port: 80}, -time.Second, "ready_timeout"},
		"timeout for nothing": {nil, time.Minute, "ready_timeout"},
	} {
		q := h.request()
		q.ReadyWhen, q.ReadyTimeout = tt.when, vm.ReadyTimeout(tt.timeout)
		_, err := h.vms.Create(t.Context(), q, "")
		if e, ok := err.(*vm.Error); !ok || e.Code != vm.CodeInvalidField || e.Field != tt.field {
			t.Errorf("%s: got %v, want %s at %s", name, err, vm.CodeInvalidField, tt.field)
		}
	}
}
