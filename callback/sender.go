// Package callback posts a JSON document to the URL that a client gave, and
// says when to try again. It keeps nothing: the document, the count of
// attempts and the time of the next one belong to the caller, who writes them
// down and so carries them over a restart.
//
// The requests follow Standard Webhooks 1.0.0.
package callback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Timeout is how long one attempt may take, from the connection to the end of
// the answer. Waiting for a place among the attempts under way comes on top.
const Timeout = 10 * time.Second

const (
	// maxInFlight is the bound on attempts under way where Options names none:
	// each holds a connection and a document of some kilobytes, so that all of
	// them together are a small part of a process's descriptors and memory.
	maxInFlight = 64

	// maxInFlightPerHost is small so that it takes many slow receivers, not
	// one, to fill all places. A build farm's one receiver still gets the
	// callbacks of a burst several at a time.
	maxInFlightPerHost = 4

	// maxAnswer is how much of an answer's body is read, to use its
	// connection again. What it says is of no interest.
	maxAnswer = 64 << 10
)

// Message is a document on its way to a receiver.
type Message struct {
	ID   string // the webhook-id header: the same at every attempt, of printable ASCII without dots
	URL  string // absolute http or https URL; its user info becomes basic authentication
	Body []byte // a JSON document
}

// Options says how a Sender works. The zero Options is ready to use.
type Options struct {
	// Secrets returns the keys that sign each attempt, one signature each, so
	// that a receiver may know either key while one replaces the other. Nil,
	// or an empty answer, leaves requests unsigned. It is called at every
	// attempt, by several goroutines at once.
	Secrets func() [][]byte

	// DialControl, if set, sees each address that is about to be connected
	// to, after its name was resolved, and refuses it by returning an error.
	// Behind a Proxy the address is the proxy's.
	DialControl func(network, address string, c syscall.RawConn) error

	// Proxy names the proxy for a request, as http.Transport's field does.
	// Nil goes to every receiver directly.
	Proxy func(*http.Request) (*url.URL, error)

	// MaxInFlight bounds the attempts under way at once; 0 means 64.
	MaxInFlight int

	// UserAgent is sent with every request; "" means osx-builder.
	UserAgent string

	// Transport, if set, makes the requests. DialControl and Proxy are then
	// its own affair.
	Transport http.RoundTripper
}

// A Sender makes attempts. Its methods may be called at once.
type Sender struct {
	client    *http.Client
	places    *places
	secrets   func() [][]byte
	userAgent string
}

// New returns a Sender. It starts nothing.
func New(o Options) *Sender {
	s := &Sender{
		client: &http.Client{
			Transport: o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
		places:    newPlaces(o.MaxInFlight),
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

// transport returns the one that New uses where it is given none. It speaks
// HTTP/1.1, where an attempt has its connection to itself.
func transport(o Options) *http.Transport {
	// A connection is set up apart from the request that wants it and does not
	// end with that request's context: it needs time limits of its own.
	dialer := net.Dialer{Timeout: Timeout, Control: o.DialControl}
	return &http.Transport{
		Proxy:                  o.Proxy,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    Timeout,
		DisableCompression:     true, // an answer of zeroes is not to unfold here
		MaxResponseHeaderBytes: maxAnswer,
		MaxIdleConns:           maxInFlight,
		MaxIdleConnsPerHost:    maxInFlightPerHost,
		IdleConnTimeout:        30 * time.Second,
	}
}

// Post makes one attempt to deliver m. It waits for a place first: at most
// four attempts go to one host and port at once, so that a slow receiver keeps
// back its own callbacks and no others.
//
// A cancelled ctx ends Post soon; Result.Err then wraps the context's cause,
// and the receiver may or may not have got the document.
func (s *Sender) Post(ctx context.Context, m Message) Result {
	r, err := http.NewRequest(http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil || r.URL.Hostname() == "" || (r.URL.Scheme != "http" && r.URL.Scheme != "https") {
		// The text of err may hold a password: it stays here.
		return Result{Err: errors.New("posting the callback: its URL is not an absolute http or https URL")}
	}
	release, err := s.places.take(ctx, receiver(r.URL))
	if err != nil {
		return interrupted(r.URL, err)
	}
	defer release()

	attempt, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	s.head(r.Header, m, time.Now())
	resp, err := s.client.Do(r.WithContext(attempt))
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return interrupted(r.URL, context.Cause(ctx))
	case attempt.Err() != nil:
		return failure(r.URL, fmt.Errorf("no answer within %v", Timeout))
	default:
		return failure(r.URL, err)
	}
	defer resp.Body.Close()
	// The status has said all; a body that breaks off changes nothing.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	return answer(r.URL, resp, time.Now())
}

// Close closes the connections that no attempt uses. It waits for none: an
// attempt under way goes on and closes its own.
func (s *Sender) Close() { s.client.CloseIdleConnections() }
