package vm

import (
	"context"
	"encoding/json"
	"time"

	"osx-builder/callback"
)

// graceTime is what a try under way gets to end when its job is cancelled: an
// answer on its way would else be lost and the callback sent twice. It is short
// since a destruction waits for it.
const graceTime = 500 * time.Millisecond

// fill makes the messages due that wait for a body, and gives them the
// machine's document as a GET would answer it now. It stays the same over all
// tries.
func (m *Manager) fill(ctx context.Context, r *record) {
	for _, o := range r.Messages {
		if o.State != CallbackWaiting {
			continue
		}
		now := time.Now().UTC()
		o.State, o.DueSince, o.NextAt = CallbackPending, now, now
		v, _ := m.describe(ctx, r, nil) // a state that cannot be read is told by v.Error
		body, err := json.Marshal(v)
		if err != nil {
			m.logOf(r).Error("callback has no body", "err", err)
			o.State, o.LastError = CallbackGivenUp, err.Error()
			continue
		}
		o.Body = body
	}
}

// deliver sends the messages until each is taken, given up or interrupted, and
// keeps the record at each try.
func (m *Manager) deliver(ctx context.Context, r *record) {
	for o := r.next(); o != nil; o = r.next() {
		if !pause(ctx, time.Until(o.NextAt)) || !m.try(ctx, r, o) {
			return
		}
	}
}

// try sends a message once and notes what became of it. It tells whether the
// try came to an end before ctx did.
func (m *Manager) try(ctx context.Context, r *record, o *message) bool {
	post, cancel := linger(ctx, graceTime)
	res := m.Callbacks.Post(post, callback.Message{ID: o.MessageID, URL: o.URL, Body: o.Body})
	cancel()
	if ctx.Err() != nil && !res.Delivered {
		return false
	}
	o.take(res, time.Now().UTC())
	m.Hooks.CalledBack(o.State)
	m.logOf(r).Info("callback", "message", o.MessageID, "state", o.State, "attempts", o.Attempts, "err", o.LastError)
	if err := m.store.keep(r); err != nil {
		m.logOf(r).Error("callback's state not written", "err", err)
	}
	return true
}

// linger returns a context that ends d after ctx does.
func linger(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if pause(longer, d) {
			cancel()
		}
	})
	return longer, func() { stop(); cancel() }
}

// take notes what became of one try.
func (o *message) take(res callback.Result, now time.Time) {
	o.Attempts++
	o.LastError = ""
	if res.Delivered {
		o.State, o.DeliveredAt, o.Body = CallbackDelivered, now, nil
		return
	}
	if res.Err != nil {
		o.LastError = res.Err.Error()
	}
	at, again := callback.Next(o.Attempts, o.DueSince, now, res)
	o.NextAt = at
	if !again {
		o.State, o.Body = CallbackGivenUp, nil
	}
}
