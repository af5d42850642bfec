package server

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
)

// limiter bounds the connections at once. Where there is no place for one
// more, the one that has waited longest for its client to send a request is
// closed: clients that connect and send nothing, or a header or a body byte by
// byte, so do not keep out those that ask. While a request is answered on each,
// a new connection waits.
type limiter struct {
	net.Listener
	most int

	mu     sync.Mutex // guards what follows
	freed  *sync.Cond // a place became free, or the listener closed
	open   int
	quiet  *list.List // of *conn without a whole request, the longest first
	closed bool
}

// conn is a connection that has a place.
type conn struct {
	net.Conn
	l     *limiter
	once  sync.Once
	quiet *list.Element // guarded by limiter.mu; nil while a request is answered
}

// connKey is where a request's context has its *conn.
type connKey struct{}

func newLimiter(l net.Listener, most int) *limiter {
	m := &limiter{Listener: l, most: most, quiet: list.New()}
	m.freed = sync.NewCond(&m.mu)
	return m
}

// Accept implements net.Listener.
func (l *limiter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.take() {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return &conn{Conn: c, l: l}, nil
}

// take waits for a place; false means that the listener was closed.
func (l *limiter) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open >= l.most && !l.closed {
		first := l.quiet.Front()
		if first == nil {
			l.freed.Wait()
			continue
		}
		c := first.Value.(*conn)
		l.hush(c, false)
		l.mu.Unlock()
		_ = c.Close() // whatever became of it, its place is free
		l.mu.Lock()
	}
	l.open++
	return !l.closed
}

// hush notes whether a connection waits for its client. l.mu is held.
func (l *limiter) hush(c *conn, quiet bool) {
	if c.quiet != nil {
		l.quiet.Remove(c.quiet)
		c.quiet = nil
	}
	if quiet {
		c.quiet = l.quiet.PushBack(c)
		l.freed.Signal()
	}
}

// state is http.Server.ConnState.
func (l *limiter) state(nc net.Conn, s http.ConnState) {
	if c := placed(nc); c != nil {
		l.mark(c, s == http.StateNew || s == http.StateIdle)
	}
}

func (l *limiter) mark(c *conn, quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hush(c, quiet)
}

// placed is a server's connection as the limiter knows it.
func placed(nc net.Conn) *conn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn() // of TLS
	}
	c, _ := nc.(*conn)
	return c
}

// context is http.Server.ConnContext.
func (l *limiter) context(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, placed(nc))
}

// owing lets a connection give way for as long as its client owes the rest of
// a request's body.
func (l *limiter) owing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(connKey{}).(*conn); c != nil && r.ContentLength != 0 {
			l.mark(c, true)
			r.Body = &owed{r.Body, func() { l.mark(c, false) }}
		}
		next.ServeHTTP(w, r)
	})
}

// owed is a body that tells when it is whole.
type owed struct {
	io.ReadCloser
	whole func()
}

func (o *owed) Read(b []byte) (int, error) {
	n, err := o.ReadCloser.Read(b)
	if err != nil {
		o.whole()
	}
	return n, err
}

// Close gives the place back.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		c.l.hush(c, false)
		c.l.open--
		c.l.freed.Signal()
	})
	return err
}

// Close implements net.Listener.
func (l *limiter) Close() error {
	l.mu.Lock()
	l.closed = true
	l.freed.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}
