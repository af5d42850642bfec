package server

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// limiter bounds the connections at once. Where there is no place for one
// more, the one that has waited longest for its client to send a request is
// closed: clients that connect and send nothing, or a header byte by byte, so
// do not keep out those that ask. While a request is answered on each, a new
// connection waits.
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
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn() // of TLS
	}
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hush(c, s == http.StateNew || s == http.StateIdle)
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
