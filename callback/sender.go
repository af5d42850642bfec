// Package callback posts a JSON document to the URL that a client gave, and computes when to try again. It stores
// nothing: the caller keeps the document, the number of attempts and the time of the next one, across restarts too.
//
// The requests follow Standard Webhooks 1.0.0.
package callback

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Timeout is how long one attempt may take, from the connection to the end of the answer. The time that an attempt
// waits before it starts does not count.
const Timeout = 10 * time.Second

const (
	// maxInFlight is the default of Options.MaxInFlight. An attempt needs a connection and a document of some
	// kilobytes, so all of them together take a small part of the process's file descriptors and memory.
	maxInFlight = 64

	// maxInFlightPerHost is small so that one slow receiver cannot use up maxInFlight. The only receiver of a build
	// farm still gets several callbacks at a time.
	maxInFlightPerHost = 4

	// maxAnswer is how many bytes of an answer are read so that its connection can be used again. The body is ignored.
	maxAnswer = 64 << 10
)

// Message is a document and its receiver.
type Message struct {
	ID   string // the webhook-id header: the same at every attempt, printable ASCII without dots
	URL  string // an absolute http or https URL; user info in it becomes basic authentication
	Body []byte // a JSON document
}

// Options configures a [Sender]. The zero Options is ready to use.
type Options struct {
	// Secrets returns the keys that sign an attempt, with one signature for each key. Requests are not signed if
	// Secrets is nil or returns none. It is called at every attempt, possibly concurrently.
	Secrets func() [][]byte

	// DialControl, if set, is called with each address before it is dialled, and refuses it by returning an error. With
	// a Proxy the address is the proxy's.
	DialControl func(network, address string, c syscall.RawConn) error

	// Proxy returns the proxy for a request, like the field of http.Transport. If it is nil, no proxy is used.
	Proxy func(*http.Request) (*url.URL, error)

	// RootCAs are the certificate authorities of receivers. Nil means those of the host.
	RootCAs *x509.CertPool

	// MaxInFlight bounds the concurrent attempts; 0 means 64.
	MaxInFlight int

	// UserAgent is sent with every request; "" means osx-builder.
	UserAgent string

	// Transport, if set, makes the requests. DialControl, Proxy and RootCAs are not used then.
	Transport http.RoundTripper
}

// Sender posts messages. Its methods may be called concurrently.
type Sender struct {
	client    *http.Client
	limiter   *limiter
	secrets   func() [][]byte
	userAgent string
}

// New returns a Sender. It starts no goroutine.
func New(o Options) *Sender {
	s := &Sender{
		client: &http.Client{
			Transport: o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
		limiter:   newLimiter(o.MaxInFlight),
		secrets:   o.Secrets,
		userAgent: o.UserAgent,
	}
	if s.client.Transport == nil {
		s.client.Transport = transport(o)
	}
	if s.secrets == nil {
		s.secrets = func() [][]byte { return nil }
	}
	if s.userAgent == "" {
		s.userAgent = "osx-builder"
	}
	return s
}

// transport returns the default transport. It uses HTTP/1.1, in which each attempt has a connection to itself.
func transport(o Options) *http.Transport {
	// http.Transport dials outside the request's context, so dialling needs its own timeout.
	dialer := net.Dialer{Timeout: Timeout, Control: o.DialControl}
	return &http.Transport{
		Proxy:                  o.Proxy,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    Timeout,
		DisableCompression:     true, // a small answer must not become a large one
		MaxResponseHeaderBytes: maxAnswer,
		MaxIdleConns:           maxInFlight,
		MaxIdleConnsPerHost:    maxInFlightPerHost,
		IdleConnTimeout:        30 * time.Second,
	}
}

// Post makes one attempt to deliver m. At most four attempts at one host and port run at once, so that a slow receiver
// delays only its own callbacks; further ones wait.
//
// If ctx ends, Post returns soon. Result.Err then wraps the context's cause, and the receiver may or may not have
// received the document.
func (s *Sender) Post(ctx context.Context, m Message) Result {
	r, err := http.NewRequest(http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil || r.URL.Hostname() == "" || (r.URL.Scheme != "http" && r.URL.Scheme != "https") {
		// err is not wrapped, because its text may contain a password.
		return Result{Err: errors.New("posting the callback: its URL is not an absolute http or https URL")}
	}
	release, err := s.limiter.acquire(ctx, hostPort(r.URL))
	if err != nil {
		return interrupted(r.URL, err)
	}
	defer release()

	attempt, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	s.setHeader(r.Header, m, time.Now())
	resp, err := s.client.Do(r.WithContext(attempt))
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return interrupted(r.URL, context.Cause(ctx))
	case attempt.Err() != nil:
		return failed(r.URL, fmt.Errorf("no answer within %v", Timeout))
	default:
		return failed(r.URL, err)
	}
	defer resp.Body.Close()
	// Only the status matters, so an error in the body does not.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	return answered(r.URL, resp, time.Now())
}

// Close closes the idle connections. A running attempt continues and closes its own.
func (s *Sender) Close() { s.client.CloseIdleConnections() }
