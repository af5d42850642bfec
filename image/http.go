package image

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxRedirects is how many redirects a download follows.
const maxRedirects = 10

// maxRetryAfter is the longest that a Retry-After is taken to say, so that
// none overflows. [Limits].Idle limits how long one is obeyed.
const maxRetryAfter = 24 * time.Hour

// deniedError is what [Options].DialControl said of an address, or CheckURL of a
// redirect's URL.
type deniedError struct{ err error }

func (e *deniedError) Error() string { return e.err.Error() }
func (e *deniedError) Unwrap() error { return e.err }

// redirectError is a redirect that is not followed.
type redirectError struct{ reason string }

func (e *redirectError) Error() string { return e.reason }

// newClient returns the client of all downloads. It speaks HTTP/1.1, which
// moves one large body faster than HTTP/2 does, keeps no connection, and has
// no timeout of its own: the download watches for a stall.
//
// Every hop of a redirect is checked by o.CheckURL.
func newClient(o Options) *http.Client {
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	if o.DialControl != nil {
		dialer.Control = func(network, address string, c syscall.RawConn) error {
			if err := o.DialControl(network, address, c); err != nil {
				return &deniedError{err}
			}
			return nil
		}
	}
	var transport http.RoundTripper = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: o.RootCAs},
		TLSHandshakeTimeout:   30 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableKeepAlives:     true,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
	}
	if o.Credentials != nil {
		transport = &credentialTransport{transport, o.Credentials}
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if err := checkRedirect(req, via); err != nil || o.CheckURL == nil {
				return err
			}
			if err := o.CheckURL(req.URL); err != nil {
				return &deniedError{err}
			}
			return nil
		},
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	// The Referer would carry the first URL's query, and its secrets, on.
	req.Header.Del("Referer")
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return &redirectError{fmt.Sprintf("the server redirects to a %s URL, not to http or https", req.URL.Scheme)}
	}
	if len(via) > maxRedirects {
		return &redirectError{fmt.Sprintf("the server redirects more than %d times", maxRedirects)}
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return &redirectError{"the server redirects from https to http"}
	}
	return nil
}

// newRequest asks for the bytes from offset on, if they still belong to what
// o describes.
func (d *download) newRequest() (*http.Request, error) {
	req, err := http.NewRequestWithContext(d.ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", d.agent)
	req.Header.Set("Accept-Encoding", "identity")
	if d.fresh {
		req.Header.Set("Cache-Control", "no-cache")
	}
	if d.part.size == 0 {
		return req, nil
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.part.size))
	o := d.part.origin
	if o.Source == sourceID(d.url) {
		if v := o.ETag; v != "" {
			req.Header.Set("If-Range", v)
		} else if v := o.LastModified; v != "" {
			req.Header.Set("If-Range", v)
		}
	}
	return req, nil
}

// accept judges a response's head: whether its body continues the part.
func (d *download) accept(res *http.Response) error {
	switch code := res.StatusCode; {
	case code == http.StatusOK:
		return d.expect(res, 0, res.ContentLength)
	case code == http.StatusPartialContent:
		first, total, ok := contentRange(res.Header.Get("Content-Range"))
		if !ok {
			return errStartOver
		}
		return d.expect(res, first, total)
	case code == http.StatusRequestedRangeNotSatisfiable && d.part.size > 0:
		if _, total, ok := contentRange(res.Header.Get("Content-Range")); ok && total == d.part.size {
			d.part.origin.Total = total
			return nil
		}
		return errStartOver
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return &retryableError{err: errors.New("the server answers " + res.Status), after: retryAfter(res.Header)}
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fail(ErrDownload, nil, "downloading %s: the server answers %q; if it needs credentials, add or correct them in the file of "+
			"-credentials-file", PublicURL(d.url), res.Status)
	default:
		return fail(ErrDownload, nil, "downloading %s: the server answers %q, not 200; check the URL", PublicURL(d.url), res.Status)
	}
}

// originOf reads what a response says about the whole file.
func originOf(url string, res *http.Response, total int64) origin {
	o := origin{Source: sourceID(url), LastModified: res.Header.Get("Last-Modified"), Total: total}
	if tag := res.Header.Get("ETag"); strings.HasPrefix(tag, `"`) { // W/"..." promises too little
		o.ETag = tag
	}
	return o
}

// fits reports whether two origins can describe the same bytes. What one does
// not say is not held against the other.
func (o origin) fits(n origin) bool {
	if o.Total >= 0 && n.Total >= 0 && o.Total != n.Total {
		return false
	}
	if o.Source != n.Source {
		return true // another server's validators; the checksum decides
	}
	if o.ETag != "" && n.ETag != "" {
		return o.ETag == n.ETag
	}
	return o.LastModified == "" || n.LastModified == "" || o.LastModified == n.LastModified
}

// contentRange reads a Content-Range header: the first byte's offset and the
// size of the whole file, each -1 if it is missing.
func contentRange(h string) (first, total int64, ok bool) {
	span, size, ok := strings.Cut(strings.TrimPrefix(h, "bytes "), "/")
	if !ok || !strings.HasPrefix(h, "bytes ") {
		return 0, 0, false
	}
	first, total = -1, -1
	if span != "*" {
		from, _, ok := strings.Cut(span, "-")
		n, err := strconv.ParseInt(from, 10, 64)
		if !ok || err != nil || n < 0 {
			return 0, 0, false
		}
		first = n
	}
	if size != "*" {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, false
		}
		total = n
	}
	return first, total, true
}

// retryAfter reads a Retry-After header: seconds, or a date. 0 means none.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(0, s), int(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(0, time.Until(t)), maxRetryAfter)
	}
	return 0
}

// retryable reports whether an error of a request is one that the next try may
// not meet: all but those that say no for good.
func retryable(err error) bool {
	var denied *deniedError
	var redirect *redirectError
	var dns *net.DNSError
	switch {
	case errors.As(err, &denied), errors.As(err, &redirect):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	default:
		return !isCertificateError(err)
	}
}

func isCertificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &unknown) || errors.As(err, &hostname)
}

// reason returns the part of a request's error that a client may read: not the
// URL, which may hold a secret and is shown beside it.
func reason(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}
