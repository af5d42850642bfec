package vm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// MaxLifetime bounds how far ahead a machine's end can lie.
	MaxLifetime = 365 * 24 * time.Hour

	// maxNap bounds how long a machine's end is waited for without a look at
	// the clock, which may be set, or stand still with the host.
	maxNap = 10 * time.Minute

	// expiryRetry lies between two attempts to destroy a machine whose time
	// is up.
	expiryRetry = time.Minute
)

// expiry is when a machine is to be destroyed. The zero expiry is never.
type expiry struct {
	At      time.Time `json:"at"`
	Seconds int       `json:"seconds"` // from when At was set: no more is ever left, wherever the clock is set
}

func newExpiry(d time.Duration, now time.Time) expiry {
	if d == 0 {
		return expiry{}
	}
	return expiry{At: now.Add(d), Seconds: int(d / time.Second)}
}

// left is how long the machine has still to live.
func (e expiry) left(now time.Time) time.Duration {
	return min(e.At.Sub(now), time.Duration(e.Seconds)*time.Second)
}

// rewound is the expiry where the clock may have been set back: its end lies no
// further ahead than it can.
func (e expiry) rewound(now time.Time) expiry {
	if latest := now.Add(time.Duration(e.Seconds) * time.Second); e.At.After(latest) {
		e.At = latest
	}
	return e
}

// Change is what a client may change of a machine that exists, as its JSON
// says it.
type Change struct {
	ExpiresIn Lifetime `json:"expires_in"` // from now
}

// Change gives a machine another time to live, counted from now. It may be
// called at any time before the machine is being destroyed, by many at once,
// of whom the last holds.
func (m *Manager) Change(ctx context.Context, id string, c Change) (VM, error) {
	if c.ExpiresIn == 0 {
		return VM{}, lifetimeError("0", m.longest())
	}
	d, err := m.lifetime(c.ExpiresIn)
	if err != nil {
		return VM{}, err
	}
	if _, err := m.record(id); err != nil {
		return VM{}, err
	}
	r, err := m.store.change(id, func(r *record) error {
		now := time.Now().UTC()
		switch {
		case r.Gone:
			return notFound(id)
		case r.Phase == Destroying:
			return &Error{Code: CodeDestroying, Message: fmt.Sprintf("machine %s is being destroyed, so its lifetime cannot be changed", id)}
		}
		if end := r.CreatedAt.Add(m.longest()); now.Add(d).After(end) {
			return lifetimeError(fmt.Sprintf("%q", d), end.Sub(now).Truncate(time.Second))
		}
		r.Expiry, r.UpdatedAt = newExpiry(d, now), now
		return nil
	})
	if err != nil {
		return VM{}, storeError(id, err)
	}
	m.arm(id, r.Expiry)
	return m.Get(ctx, id)
}

// lifetime returns how long a machine is to live, in whole seconds; 0 is
// without end. A machine for which nothing was asked gets the longest that the
// host allows.
func (m *Manager) lifetime(asked Lifetime) (time.Duration, error) {
	d := time.Duration(asked)
	if d < 0 || d > m.longest() {
		return 0, lifetimeError(fmt.Sprintf("%q", d), m.longest())
	}
	return (d + time.Second - 1).Truncate(time.Second), nil
}

// longest is how long a machine may live from its creation.
func (m *Manager) longest() time.Duration {
	if m.MaxLifetime > 0 {
		return m.MaxLifetime
	}
	return MaxLifetime
}

// rewind returns a machine's expiry, and writes it down where the clock was set
// back under it: else the machine would live until the clock is where it was.
func (m *Manager) rewind(r *record, now time.Time) expiry {
	e := r.Expiry.rewound(now)
	if e == r.Expiry {
		return e
	}
	if _, err := m.store.change(r.ID, func(r *record) error { r.Expiry = r.Expiry.rewound(now); return nil }); err != nil {
		m.Log.Warn("end of the machine's time not corrected", "vm", r.ID, "err", err)
	}
	return e
}

// arm sees to it that a machine is destroyed when its time is up.
func (m *Manager) arm(id string, e expiry) {
	if !e.At.IsZero() {
		m.wake(id, min(e.left(time.Now()), maxNap))
	}
}

func (m *Manager) wake(id string, after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return
	}
	if t := m.timers[id]; t != nil {
		t.Stop()
	}
	m.timers[id] = time.AfterFunc(after, func() { m.expire(id) })
}

// expire destroys a machine if its time is up, and else waits for that.
func (m *Manager) expire(id string) {
	if !m.begin() {
		return
	}
	defer m.wg.Done()
	r, err := m.record(id)
	switch {
	case err != nil && clientError(err).Code == CodeNotFound:
		m.unlist(id, "")
		return
	case err != nil:
		m.wake(id, expiryRetry)
		return
	case r.Expiry.left(time.Now()) > 0:
		m.arm(id, m.rewind(r, time.Now().UTC()))
		return
	}
	m.Log.Info("the machine's time is up", "vm", id, "expired_at", r.Expiry.At)
	why := &Error{Code: CodeExpired, Message: "the machine's lifetime ended at " + r.Expiry.At.Format(time.RFC3339)}
	err = m.takeAway(m.ctx, id, why)
	var known *Error
	if err == nil || (errors.As(err, &known) && known.Code == CodeNotFound) || m.ctx.Err() != nil {
		return
	}
	m.Log.Error("a machine whose time is up was not destroyed; trying again", "vm", id, "in", expiryRetry, "err", err)
	m.wake(id, expiryRetry)
}
