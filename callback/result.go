package callback

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxText bounds what an error quotes, in bytes: part of it may come from the receiver, and it is stored in a record
// and shown to clients.
const maxText = 300

// Result is the outcome of one attempt.
type Result struct {
	// Delivered is true if the receiver accepted the document with a 2xx status.
	Delivered bool

	// Gone is true if the receiver answered 410: it wants no more attempts.
	Gone bool

	// RetryAfter is the delay that the receiver asked for, at most Lifetime, or 0.
	RetryAfter time.Duration

	// Err says why the document was not delivered; it is nil if it was. The text is short and contains the URL without
	// user info and query, so that it can be shown. Err wraps the cause of a cancelled context and no other error.
	Err error
}

// failed is the Result of an attempt that got no answer.
func failed(u *url.URL, err error) Result {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the URL: its query may be secret
	}
	return Result{Err: fmt.Errorf("posting to %s: %s", publicURL(u), shorten(err.Error()))}
}

// interrupted is the Result of an attempt that its context ended.
func interrupted(u *url.URL, cause error) Result {
	return Result{Err: fmt.Errorf("posting to %s: %w", publicURL(u), cause)}
}

// answered is the Result of an attempt that got an answer. Only 2xx is a success. A redirect is not followed, because
// it could send the document anywhere.
func answered(u *url.URL, resp *http.Response, now time.Time) Result {
	code := resp.StatusCode
	if code >= 200 && code <= 299 {
		return Result{Delivered: true}
	}
	text := strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
	switch {
	case code >= 300 && code <= 399:
		text += ", and redirects are not followed: the callback URL must be the final one"
	case code == http.StatusGone:
		text += ": it wants no more attempts"
	}
	return Result{
		Gone:       code == http.StatusGone,
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), now),
		Err:        fmt.Errorf("posting to %s: the receiver answered %s", publicURL(u), text),
	}
}

// retryAfter reads a Retry-After header: whole seconds or a date. It returns 0 for any other value.
func retryAfter(s string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil {
		seconds = min(max(seconds, 0), int64(Lifetime/time.Second))
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), Lifetime)
}

// publicURL returns the part of u that anybody may see. Unlike image.PublicURL, it is bounded; neither package may
// import the other.
func publicURL(u *url.URL) string {
	public := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return shorten(public.String())
}

// shorten cuts s to maxText bytes of valid UTF-8.
func shorten(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.ToValidUTF8(s, "")
}
