package callback_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/callback"
)

func newSender(t *testing.T, o callback.Options) *callback.Sender {
	t.Helper()
	s := callback.New(o)
	t.Cleanup(s.Close)
	return s
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestPostRequest(t *testing.T) {
	type request struct {
		Method, Path, Query, User, Password, Body string
		Header                                    map[string]string
	}
	var got request
	var stamp string
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		stamp = r.Header.Get("webhook-timestamp")
		got = request{r.Method, r.URL.Path, r.URL.RawQuery, user, password, string(body), map[string]string{}}
		for _, name := range []string{"Content-Type", "Content-Length", "webhook-id", "webhook-signature", "User-Agent", "Idempotency-Key", "Accept-Encoding"} {
			got.Header[name] = strings.Join(r.Header.Values(name), "|")
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := newSender(t, callback.Options{UserAgent: "osx-builder/9"})

	before := time.Now().Unix()
	res := s.Post(t.Context(), callback.Message{
		ID:   "msg_1",
		URL:  strings.Replace(srv.URL, "http://", "http://ci:pass@", 1) + "/hook?job=1",
		Body: []byte(`{"id":"1"}`),
	})
	if !res.Delivered || res.Gone || res.Err != nil || res.RetryAfter != 0 {
		t.Errorf("got %+v, want only Delivered", res)
	}
	if diff := cmp.Diff(request{"POST", "/hook", "job=1", "ci", "pass", `{"id":"1"}`, map[string]string{
		"Content-Type":      "application/json",
		"Content-Length":    "10",
		"webhook-id":        "msg_1",
		"webhook-signature": "",
		"User-Agent":        "osx-builder/9",
		"Idempotency-Key":   "",
		"Accept-Encoding":   "",
	}}, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if n, err := strconv.ParseInt(stamp, 10, 64); err != nil || n < before || n > time.Now().Unix() {
		t.Errorf("got webhook-timestamp %q, want unix seconds of now", stamp)
	}
}

// The body of an answer neither fails the delivery nor is read beyond 64 KiB.
func TestPostLimitsAnswer(t *testing.T) {
	sent := make(chan int64, 1)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(w, zeroes{})
		sent <- n
	})
	s := newSender(t, callback.Options{})
	if res := s.Post(t.Context(), callback.Message{ID: "1", URL: srv.URL}); !res.Delivered {
		t.Errorf("got %+v, want Delivered", res)
	}
	// The kernel's buffers take some more before the connection is closed.
	if n := <-sent; n > 32<<20 {
		t.Errorf("the receiver sent %d bytes, want it cut off", n)
	}
}

func TestPostLimitsAnswerHeader(t *testing.T) {
	url := raw(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: "+strings.Repeat("x", 128<<10)+"\r\n\r\n")
	})
	res := newSender(t, callback.Options{}).Post(t.Context(), callback.Message{ID: "1", URL: url})
	if res.Delivered {
		t.Errorf("got %+v, want a failure", res)
	}
	want(t, res.Err, "posting to "+url)
}

func TestPostDialControl(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the receiver was reached") })
	var asked string
	s := newSender(t, callback.Options{DialControl: func(_, address string, _ syscall.RawConn) error {
		asked = address
		return errors.New("loopback is not allowed")
	}})
	res := s.Post(t.Context(), callback.Message{ID: "1", URL: srv.URL})
	want(t, res.Err, "loopback is not allowed")
	if wanted := srv.Listener.Addr().String(); asked != wanted {
		t.Errorf("DialControl saw %q, want %q", asked, wanted)
	}
}

// If a receiver closes a kept connection when the next request arrives, the request is sent again.
func TestPostRetriesClosedConnection(t *testing.T) {
	url := raw(t, func(c net.Conn) {
		buf := make([]byte, 4096)
		_, _ = c.Read(buf)
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		_, _ = c.Read(buf)
	})
	s := newSender(t, callback.Options{})
	for i := range 3 {
		if res := s.Post(t.Context(), callback.Message{ID: "1", URL: url, Body: []byte("{}")}); !res.Delivered {
			t.Errorf("attempt %d: got %+v, want Delivered", i+1, res)
		}
	}
}

// The connection to a receiver that never answers the TLS handshake is closed by a cancelled attempt and Close.
func TestCloseDuringHandshake(t *testing.T) {
	accepted, closed := make(chan struct{}), make(chan struct{})
	url := raw(t, func(c net.Conn) {
		close(accepted)
		_, _ = io.Copy(io.Discard, c)
		close(closed)
	})
	ctx, cancel := cancelCause(t)
	go func() {
		<-accepted
		cancel(errStop)
	}()
	s := callback.New(callback.Options{})
	res := s.Post(ctx, callback.Message{ID: "1", URL: strings.Replace(url, "http", "https", 1)})
	s.Close()
	if !errors.Is(res.Err, errStop) {
		t.Errorf("got %v, want the cause of the cancelled context", res.Err)
	}
	select {
	case <-closed:
	case <-time.After(callback.Timeout / 2):
		t.Error("the connection is still open after Close")
	}
}

// raw serves each connection with f, then closes it. It returns the URL.
func raw(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}
