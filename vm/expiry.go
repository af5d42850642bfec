package vm

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// MaxLifetime bounds how far ahead the end of a machine's lifetime can be.
	MaxLifetime = 365 * 24 * time.Hour

	// maxTimer bounds how long a timer runs before the clock is read again: the
	// clock may be set, or stand still while the host is suspended.
	maxTimer = 10 * time.Minute

	// expiryRetry is the time between two attempts to destroy an expired
	// machine.
	expiryRetry = time.Minute
)

// expiry is when a machine is destroyed. The zero expiry is never.
type expiry struct {
	At      time.Time `json:"at"`
	Seconds int       `json:"seconds"` // from when At was set; no more than that is ever left, however the clock is set
}

func newExpiry(d time.Duration, now time.Time) expiry {
	if d == 0 {
		return expiry{}
	}
	return expiry{At: now.Add(d), Seconds: int(d / time.Second)}
}

// left returns how long the machine still lives.
func (e expiry) left(now time.Time) time.Duration {
	return min(e.At.Sub(now), time.Duration(e.Seconds)*time.Second)
}

// clamp returns the expiry for a clock that may have been set back: it is no
// further ahead than Seconds.
func (e expiry) clamp(now time.Time) expiry {
	if latest := now.Add(time.Duration(e.Seconds) * time.Second); e.At.After(latest) {
		e.At = latest
	}
	return e
}

// lifetime returns how long a machine is to live, in whole seconds; 0 is without
// end. A machine for which nothing was asked gets the longest lifetime that the
// host allows.
func (o *Options) lifetime(asked Lifetime) (time.Duration, error) {
	d := time.Duration(asked)
	if d < 0 || d > o.longestLifetime() {
		return 0, lifetimeError(fmt.Sprintf("%q", readable(d)), o.longestLifetime())
	}
	return (d + time.Second - 1).Truncate(time.Second), nil
}

// longestLifetime returns how long a machine may live from its creation.
func (o *Options) longestLifetime() time.Duration {
	if o.MaxLifetime > 0 {
		return o.MaxLifetime
	}
	return MaxLifetime
}

// expiryTimers destroys each machine at the end of its lifetime.
type expiryTimers struct {
	tasks   *tasks
	store   *store
	log     *slog.Logger
	destroy func(ctx context.Context, id string, why *Error) error
	missing func(id string) // called for a machine that has no record any more

	mu     sync.Mutex // guards what follows
	byID   map[string]*time.Timer
	closed bool
}

// set sees to it that a machine is destroyed at the end of its lifetime, if it
// has one.
func (t *expiryTimers) set(id string, e expiry) {
	if e.At.IsZero() {
		t.remove(id)
		return
	}
	t.start(id, min(e.left(time.Now()), maxTimer))
}

func (t *expiryTimers) start(id string, after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if old := t.byID[id]; old != nil {
		old.Stop()
	}
	t.byID[id] = time.AfterFunc(after, func() { t.expire(id) })
}

// remove stops the timer of a machine that does not exist any more.
func (t *expiryTimers) remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if timer := t.byID[id]; timer != nil {
		timer.Stop()
	}
	delete(t.byID, id)
}

// close stops all timers.
func (t *expiryTimers) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, timer := range t.byID {
		timer.Stop()
	}
}

// expire destroys a machine if its lifetime is over. Otherwise it sets another
// timer.
func (t *expiryTimers) expire(id string) {
	if !t.tasks.begin() {
		return
	}
	defer t.tasks.end()
	r, err := t.store.get(id)
	switch {
	case err != nil && clientError(err).Code == CodeNotFound:
		t.missing(id)
		return
	case err != nil:
		t.start(id, expiryRetry)
		return
	case r.Expiry.At.IsZero():
		return // it was removed while this timer ended
	case r.Expiry.left(time.Now()) > 0:
		t.set(id, t.clamp(r, time.Now().UTC()))
		return
	}
	t.log.Info("the machine's lifetime is over", "vm", id, "expired_at", r.Expiry.At)
	why := &Error{Code: CodeExpired, Message: "the machine's lifetime ended at " + r.Expiry.At.Format(time.RFC3339)}
	err = t.destroy(t.tasks.ctx, id, why)
	if known := asError(err); err == nil || (known != nil && known.Code == CodeNotFound) || t.tasks.ctx.Err() != nil {
		return
	}
	t.log.Error("an expired machine was not destroyed; trying again", "vm", id, "in", expiryRetry, "err", err)
	t.start(id, expiryRetry)
}

// clamp returns a machine's expiry, and writes it down if the clock was set
// back: otherwise the machine would live until the clock is where it was.
func (t *expiryTimers) clamp(r *record, now time.Time) expiry {
	e := r.Expiry.clamp(now)
	if e == r.Expiry {
		return e
	}
	if _, err := t.store.change(r.ID, func(r *record) error { r.Expiry = r.Expiry.clamp(now); return nil }); err != nil {
		t.log.Warn("the end of the machine's lifetime was not corrected", "vm", r.ID, "err", err)
	}
	return e
}
