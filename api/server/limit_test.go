package server_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"osx-builder/api/server"
	"osx-builder/vm/vmtest/harness"
)

// client is a connection to a server.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (s *testServer) dial() client {
	s.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	must(s.t, c.SetDeadline(time.Now().Add(harness.Timeout)))
	return client{c, s.t, bufio.NewReader(c)}
}

func (c client) write(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	must(c.t, err)
}

func (c client) get(path string) client {
	c.t.Helper()
	c.write("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
	return c
}

func (c client) expectAnswer() {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	must(c.t, err)
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "hello" {
		c.t.Fatalf("got %q, %v, want hello", b, err)
	}
}

// expectClosed waits until the server closes the connection.
func (c client) expectClosed() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
		c.t.Fatalf("got %q, %v, want the connection closed", b, err)
	}
}

// blockingHandler returns a handler that answers requests for /held only after release is closed or receives a value.
// It reports each such request, and each POST, on received.
func blockingHandler() (h http.HandlerFunc, received, release chan struct{}) {
	received, release = make(chan struct{}, 100), make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			received <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
		}
		if r.URL.Path == "/held" {
			received <- struct{}{}
			<-release
		}
		hello(w, r)
	}, received, release
}

// idleClients are clients that keep the server waiting, each in its own way.
var idleClients = map[string]func(client, <-chan struct{}){
	"silent":      func(client, <-chan struct{}) {},
	"kept alive":  func(c client, _ <-chan struct{}) { c.get("/").expectAnswer() },
	"slow header": func(c client, _ <-chan struct{}) { c.write("GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow") },
	"missing body": func(c client, received <-chan struct{}) {
		c.write("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
		<-received
	},
}

// At the limit, the server closes a connection that waits for its client. It keeps one whose request is being
// answered.
func TestIdleConnectionIsClosed(t *testing.T) {
	for name, wait := range idleClients {
		t.Run(name, func(t *testing.T) {
			h, received, release := blockingHandler()
			s := startServer(t, server.Options{Connections: 2}, h)
			answered := s.dial().get("/held")
			<-received
			idle := s.dial()
			wait(idle, received)
			s.dial().get("/").expectAnswer()
			idle.expectClosed()
			close(release)
			answered.expectAnswer()
		})
	}
}

// At the limit, the server closes connections whose clients send many requests and never read the answers.
func TestUnreadAnswersAreClosed(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	blocking, received, release := blockingHandler()
	s := startServer(t, server.Options{Connections: 4}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = io.WriteString(w, large)
			return
		}
		blocking(w, r)
	})
	answered := s.dial().get("/held")
	<-received
	for range 8 {
		s.dial().write(strings.Repeat("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n", 100))
	}
	s.dial().get("/").expectAnswer()
	close(release)
	answered.expectAnswer()
}

// The connection that has waited longest is closed first.
func TestLongestIdleConnectionIsClosedFirst(t *testing.T) {
	s := startServer(t, server.Options{Connections: 2}, hello)
	first, second := s.dial(), s.dial()
	s.dial().get("/").expectAnswer()
	first.expectClosed()
	second.get("/").expectAnswer()
}

// If every connection has a request that is being answered, a new connection waits until one ends. It is closed if
// the server stops first.
func TestConnectionWaits(t *testing.T) {
	h, received, release := blockingHandler()
	s := startServer(t, server.Options{Connections: 2}, h)
	first, second := s.dial().get("/held"), s.dial().get("/held")
	<-received
	<-received
	waiting := s.dial().get("/")
	must(t, waiting.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if _, err := waiting.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("beyond the limit: got %v, want no answer yet", err)
	}
	must(t, waiting.SetReadDeadline(time.Now().Add(harness.Timeout)))
	release <- struct{}{}
	waiting = client{waiting.Conn, t, bufio.NewReader(waiting.Conn)}
	waiting.expectAnswer()
	close(release)
	first.expectAnswer()
	second.expectAnswer()
	must(t, s.stop())
}
