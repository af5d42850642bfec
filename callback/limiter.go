package callback

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
)

// limiter is a semaphore for all attempts, and one for each host. An attempt that waits for its host holds no slot of
// the semaphore for all.
type limiter struct {
	all chan struct{} // an item for each running attempt

	mu    sync.Mutex
	hosts map[string]*host // the hosts with users; guarded by mu
}

type host struct {
	running chan struct{} // an item for each running attempt at this host
	users   int           // running and waiting attempts; guarded by limiter.mu
}

func newLimiter(n int) *limiter {
	if n <= 0 {
		n = maxInFlight
	}
	return &limiter{all: make(chan struct{}, n), hosts: make(map[string]*host)}
}

// acquire waits until an attempt at the named host may start. The caller calls release once. If ctx ends first, acquire
// returns its cause.
func (l *limiter) acquire(ctx context.Context, name string) (release func(), err error) {
	h := l.addUser(name)
	select {
	case h.running <- struct{}{}:
	case <-ctx.Done():
		l.removeUser(name, h)
		return nil, context.Cause(ctx)
	}
	select {
	case l.all <- struct{}{}:
	case <-ctx.Done():
		<-h.running
		l.removeUser(name, h)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-l.all
		<-h.running
		l.removeUser(name, h)
	}, nil
}

func (l *limiter) addUser(name string) *host {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hosts[name]
	if h == nil {
		h = &host{running: make(chan struct{}, maxInFlightPerHost)}
		l.hosts[name] = h
	}
	h.users++
	return h
}

func (l *limiter) removeUser(name string, h *host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.users--
	if h.users == 0 {
		delete(l.hosts, name)
	}
}

// hostPort returns the host and port of u.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
