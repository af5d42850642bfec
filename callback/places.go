package callback

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
)

// places bounds the attempts under way, in all and for each host. Whoever
// waits for a place at a slow host holds none of the places for all.
type places struct {
	all chan struct{} // holds an item for each attempt under way

	mu    sync.Mutex
	hosts map[string]*host // those that have users; guarded by mu
}

type host struct {
	busy  chan struct{} // holds an item for each attempt under way at this host
	users int           // attempts under way or waiting; guarded by places.mu
}

func newPlaces(n int) *places {
	if n <= 0 {
		n = maxInFlight
	}
	return &places{all: make(chan struct{}, n), hosts: make(map[string]*host)}
}

// take waits for a place at the named host. The caller gives it back by
// calling release, once. An error is the cause of a cancelled ctx.
func (p *places) take(ctx context.Context, name string) (release func(), err error) {
	h := p.enter(name)
	select {
	case h.busy <- struct{}{}:
	case <-ctx.Done():
		p.leave(name, h)
		return nil, context.Cause(ctx)
	}
	select {
	case p.all <- struct{}{}:
	case <-ctx.Done():
		<-h.busy
		p.leave(name, h)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-p.all
		<-h.busy
		p.leave(name, h)
	}, nil
}

func (p *places) enter(name string) *host {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[name]
	if h == nil {
		h = &host{busy: make(chan struct{}, maxInFlightPerHost)}
		p.hosts[name] = h
	}
	h.users++
	return h
}

func (p *places) leave(name string, h *host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.users--
	if h.users == 0 {
		delete(p.hosts, name)
	}
}

// receiver names the host and port that u leads to.
func receiver(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
