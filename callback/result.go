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

// maxText bounds what an error quotes, in bytes: part of it may be the
// receiver's own words, and it is kept in a record and shown to clients.
const maxText = 300

// Result is what came of one attempt.
type Result struct {
	// Delivered is set when the receiver took the document: it answered 2xx.
	Delivered bool

	// Gone is set when the receiver answered 410: it wants no more attempts.
	Gone bool

	// RetryAfter is how long the receiver asked to be left alone, 0 if it
	// asked for nothing; at most Lifetime.
	RetryAfter time.Duration

	// Err says why the document was not delivered, nil if it was. The text is
	// short and names the URL without user info and query, so that it can be
	// shown. It wraps the cause of a cancelled context, and no other error.
	Err error
}

// failure is the Result of an attempt that got no answer.
func failure(u *url.URL, err error) Result {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the URL, whose query is nobody's business
	}
	return Result{Err: fmt.Errorf("posting to %s: %s", public(u), short(err.Error()))}
}

// interrupted is the Result of an attempt that the caller ended, for cause.
func interrupted(u *url.URL, cause error) Result {
	return Result{Err: fmt.Errorf("posting to %s: %w", public(u), cause)}
}

// answer is the Result of an answered attempt. Any 2xx is success; nothing
// else is, a redirect neither, as it could lead the document anywhere.
func answer(u *url.URL, resp *http.Response, now time.Time) Result {
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
		Err:        fmt.Errorf("posting to %s: the receiver answered %s", public(u), text),
	}
}

// retryAfter reads a Retry-After header: whole seconds, or a date. What it
// cannot read counts as absent.
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

// public is the part of u that may be shown.
func public(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return short(shown.String())
}

// short cuts s to maxText bytes of valid UTF-8.
func short(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.ToValidUTF8(s, "")
}
