package server_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"osx-builder/api/server"
)

// client is a connection to a server.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (r *running) dial() client {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.URL(), "http://"))
	must(r.t, err)
	r.t.Cleanup(func() { _ = c.Close() })
	must(r.t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return client{c, r.t, bufio.NewReader(c)}
}

func (c client) send(path string) client {
	c.t.Helper()
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
	must(c.t, err)
	return c
}

func (c client) answer() {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	must(c.t, err)
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "hello" {
		c.t.Fatalf("got %q, %v, want hello", b, err)
	}
}

// cutOff waits until the server has closed the connection.
func (c client) cutOff() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
		c.t.Fatalf("got %q, %v, want the connection closed", b, err)
	}
}

// gate is a handler that holds requests for /held until they are let go.
func gate() (h http.HandlerFunc, entered, let chan struct{}) {
	entered, let = make(chan struct{}, 100), make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			entered <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
		}
		if r.URL.Path == "/held" {
			entered <- struct{}{}
			<-let
		}
		hello(w, r)
	}, entered, let
}

// The connection that has waited longest for a request gives way, be it one
// that is kept alive, or one whose header or body does not come; one that is
// answered stays.
func TestQuietConnectionsGiveWay(t *testing.T) {
	h, entered, let := gate()
	r := run(t, server.Options{Connections: 3}, h)
	asks := r.dial().send("/held")
	<-entered
	kept := r.dial().send("/")
	kept.answer()
	slow := r.dial()
	_, err := io.WriteString(slow, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow")
	must(t, err)
	r.dial().send("/").answer()
	kept.cutOff()
	r.dial().send("/").answer()
	slow.cutOff()
	body := r.dial()
	_, err = io.WriteString(body, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
	must(t, err)
	<-entered
	r.dial().send("/").answer()
	r.dial().send("/").answer()
	body.cutOff()
	close(let)
	asks.answer()
}

// Where each connection is being answered, a new one waits until one is free,
// and is cut off where the server stops first.
func TestConnectionsWait(t *testing.T) {
	h, entered, let := gate()
	r := run(t, server.Options{Connections: 2}, h)
	one, two := r.dial().send("/held"), r.dial().send("/held")
	<-entered
	<-entered
	waits := r.dial().send("/")
	must(t, waits.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if _, err := waits.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("beyond the limit: got %v, want no answer yet", err)
	}
	must(t, waits.SetReadDeadline(time.Now().Add(20*time.Second)))
	let <- struct{}{}
	waits = client{waits.Conn, t, bufio.NewReader(waits.Conn)}
	waits.answer()
	close(let)
	one.answer()
	two.answer()
	must(t, r.stop())
}
