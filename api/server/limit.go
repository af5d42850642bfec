package server

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// stallTime is how long a write must block before its connection counts as stalled. Writes to a client on a slow line
// block for shorter times.
const stallTime = time.Second

// connLimiter bounds the number of open connections. If the limit is reached and another client connects, the limiter
// closes the connection that has waited longest for its client to send a request. If there is none, it closes the
// connection whose client has not read its answer for the longest time. So clients that connect and send nothing, that
// send a header or a body byte by byte, or that do not read answers cannot keep others out. If every connection has a
// request that is being answered, the new connection waits.
type connLimiter struct {
	net.Listener
	max int

	mu      sync.Mutex // guards the fields below and the lower fields of limitedConn
	freed   *sync.Cond // a connection ended or became idle, or the listener was closed
	open    int
	idle    *list.List // of *limitedConn that wait for a request, the longest first
	writing *list.List // of *limitedConn with an unfinished write, the longest first
	closed  bool
}

// limitedConn is a connection that a [connLimiter] counts.
type limitedConn struct {
	net.Conn
	limiter *connLimiter
	once    sync.Once

	idle         *list.Element // in connLimiter.idle; nil while a request is answered
	writing      *list.Element // in connLimiter.writing; nil without an unfinished write
	writingSince time.Time
}

// connKey is the key of a request context's *limitedConn.
type connKey struct{}

func newConnLimiter(l net.Listener, max int) *connLimiter {
	m := &connLimiter{Listener: l, max: max, idle: list.New(), writing: list.New()}
	m.freed = sync.NewCond(&m.mu)
	return m
}

// Accept implements [net.Listener].
func (l *connLimiter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.acquire() {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return &limitedConn{Conn: c, limiter: l}, nil
}

// acquire waits until one more connection may be open. It returns false if the listener was closed.
func (l *connLimiter) acquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open >= l.max && !l.closed {
		c := l.longestWaiting()
		if c == nil {
			l.waitForFreed()
			continue
		}
		l.markIdle(c, false)
		l.markWriting(c, false)
		l.mu.Unlock()
		_ = c.Close() // even if closing fails, the connection no longer counts
		l.mu.Lock()
	}
	l.open++
	return !l.closed
}

// longestWaiting returns the connection that has waited longest for a request, or for its client to read, or nil. The
// caller holds l.mu.
func (l *connLimiter) longestWaiting() *limitedConn {
	if first := l.idle.Front(); first != nil {
		return first.Value.(*limitedConn)
	}
	if first := l.writing.Front(); first != nil {
		if c := first.Value.(*limitedConn); time.Since(c.writingSince) >= stallTime {
			return c
		}
	}
	return nil
}

// waitForFreed waits until a connection ends, becomes idle or may have become stalled. The caller holds l.mu.
func (l *connLimiter) waitForFreed() {
	d := stallTime
	if first := l.writing.Front(); first != nil {
		d -= time.Since(first.Value.(*limitedConn).writingSince)
	}
	t := time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.freed.Signal()
	})
	defer t.Stop()
	l.freed.Wait()
}

// markIdle records whether a connection waits for its client. The caller holds l.mu.
func (l *connLimiter) markIdle(c *limitedConn, idle bool) {
	if c.idle != nil {
		l.idle.Remove(c.idle)
		c.idle = nil
	}
	if idle {
		c.idle = l.idle.PushBack(c)
		l.freed.Signal()
	}
}

// markWriting records whether a connection has an unfinished write. The caller holds l.mu.
func (l *connLimiter) markWriting(c *limitedConn, writing bool) {
	if c.writing != nil {
		l.writing.Remove(c.writing)
		c.writing = nil
	}
	if writing {
		c.writing, c.writingSince = l.writing.PushBack(c), time.Now()
	}
}

// setWriting is markWriting for callers that do not hold l.mu.
func (l *connLimiter) setWriting(c *limitedConn, writing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.markWriting(c, writing)
}

// setIdle is markIdle for callers that do not hold l.mu.
func (l *connLimiter) setIdle(c *limitedConn, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.markIdle(c, idle)
}

// connState is the [http.Server.ConnState] hook.
func (l *connLimiter) connState(nc net.Conn, s http.ConnState) {
	if c := unwrapConn(nc); c != nil {
		l.setIdle(c, s == http.StateNew || s == http.StateIdle)
	}
}

// connContext is the [http.Server.ConnContext] hook.
func (l *connLimiter) connContext(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, unwrapConn(nc))
}

// unwrapConn returns the limiter's own connection under a connection of the server, or nil.
func unwrapConn(nc net.Conn) *limitedConn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn() // a TLS connection
	}
	c, _ := nc.(*limitedConn)
	return c
}

// trackBodies counts a connection as idle while the server waits for the rest of a request's body. A client that
// announces a body and does not send it must not keep others out.
func (l *connLimiter) trackBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(connKey{}).(*limitedConn); c != nil && r.ContentLength != 0 {
			l.setIdle(c, true)
			r.Body = &pendingBody{r.Body, func() { l.setIdle(c, false) }}
		}
		next.ServeHTTP(w, r)
	})
}

// pendingBody is a request body that calls received once it was read to its end.
type pendingBody struct {
	io.ReadCloser
	received func()
}

func (b *pendingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.received()
	}
	return n, err
}

// Write implements [net.Conn]. While it blocks, the connection counts as writing.
func (c *limitedConn) Write(b []byte) (int, error) {
	c.limiter.setWriting(c, true)
	defer c.limiter.setWriting(c, false)
	return c.Conn.Write(b)
}

// Close closes the connection, which no longer counts then.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		l := c.limiter
		l.mu.Lock()
		defer l.mu.Unlock()
		l.markIdle(c, false)
		l.open--
		l.freed.Signal()
	})
	return err
}

// Close implements [net.Listener].
func (l *connLimiter) Close() error {
	l.mu.Lock()
	l.closed = true
	l.freed.Broadcast()
	l.mu.Unlock()
	return l.Listener.Close()
}
