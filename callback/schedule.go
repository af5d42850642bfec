package callback

import (
	"math/rand/v2"
	"time"
)

// Lifetime is how long a document is sent again before it is given up.
const Lifetime = 24 * time.Hour

// maxAttempts bounds the attempts if the clock does not: on a host whose clock was set back, Lifetime can take years.
// If the clock is right, there are about a dozen attempts.
const maxAttempts = 20

// backoff returns how long to wait after the given number of attempts. The receiver is often a CI job that runs for
// minutes, so the first attempts are close together.
func backoff(attempts int) time.Duration {
	delays := [...]time.Duration{
		0, time.Second, 5 * time.Second, 30 * time.Second,
		2 * time.Minute, 5 * time.Minute, 30 * time.Minute,
		2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
	}
	return delays[min(max(attempts, 0), len(delays)-1)]
}

// Next returns the time of the next attempt after the given number of attempts. r is the [Result] of the last one.
// The first attempt is due now. The delays then grow from a second to ten hours, each up to a fifth shorter or longer,
// so that many documents do not arrive at once. If the receiver asked for a longer delay, Next returns that.
//
// The last attempt is at most [Lifetime] after started, the time at which the document was first due. After it, or
// after a delivery or a 410, again is false. The first attempt is always made, however late.
//
// The returned time is at most Lifetime after now, whatever the clock was at started. A caller that keeps it across a
// restart should not wait longer than that either, because the clock may have been set back meanwhile.
func Next(attempts int, started, now time.Time, r Result) (at time.Time, again bool) {
	if r.Delivered || r.Gone || attempts >= maxAttempts {
		return time.Time{}, false
	}
	if attempts <= 0 {
		return now, true
	}
	left := started.Add(Lifetime).Sub(now)
	if left <= 0 {
		return time.Time{}, false
	}
	wait := time.Duration(float64(backoff(attempts)) * (0.8 + 0.4*rand.Float64()))
	wait = max(wait, min(r.RetryAfter, Lifetime))
	return now.Add(min(wait, left)), true
}
