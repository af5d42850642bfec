package callback

import (
	"math/rand/v2"
	"time"
)

// Lifetime is how long a document is offered to its receiver.
const Lifetime = 24 * time.Hour

// maxAttempts ends attempts where the clock does not: on a host whose clock
// was set back, Lifetime can take years. With a clock that runs evenly a
// document is offered about a dozen times.
const maxAttempts = 20

// pause returns how long to wait after the given number of attempts. The
// receiver is often a CI job that lives for minutes, so the first tries come
// close together.
func pause(attempts int) time.Duration {
	pauses := [...]time.Duration{
		0, time.Second, 5 * time.Second, 30 * time.Second,
		2 * time.Minute, 5 * time.Minute, 30 * time.Minute,
		2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
	}
	return pauses[min(max(attempts, 0), len(pauses)-1)]
}

// Next says when to make the next attempt, after the given number of them, of
// which r is the last one's Result: now if there was none, and then after
// pauses that grow from a second to ten hours, each up to a fifth shorter or
// longer so that many documents do not arrive as one. A receiver that asks for
// a longer pause gets it.
//
// The last attempt is made at most Lifetime after started, when the document
// was first due, and then, or after a delivery or a 410, again is false. The
// first attempt is always made, however late.
//
// The time is never further than Lifetime from now, wherever the clock stood
// at started. A caller who keeps it over a restart should wait no longer than
// that either, as the clock may have been set back meanwhile.
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
	wait := time.Duration(float64(pause(attempts)) * (0.8 + 0.4*rand.Float64()))
	wait = max(wait, min(r.RetryAfter, Lifetime))
	return now.Add(min(wait, left)), true
}
