package vm

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"osx-builder/callback"
)

// callbackGrace is how long an attempt to send a callback may go on once its job
// is cancelled: if the receiver has just taken it, the callback would be sent
// twice. It is short, because a destruction waits for it.
const callbackGrace = 500 * time.Millisecond

// callbacks sends the messages of records.
type callbacks struct {
	sender *callback.Sender
	store  *store
	reader *reader
	hooks  Hooks
	log    *slog.Logger
}

// fill makes the waiting messages due. Their body is the machine's document as
// GET would return it now, and stays the same over all attempts. If ctx ends
// before the machine is read, fill returns false and the message keeps waiting:
// its body must not say that the machine cannot be read.
func (c *callbacks) fill(ctx context.Context, r *record) bool {
	for _, msg := range r.Messages {
		if msg.State != CallbackWaiting {
			continue
		}
		waiting, now := *msg, time.Now().UTC()
		msg.State, msg.DueSince, msg.NextAt = CallbackPending, now, now
		v, err := c.reader.describe(ctx, r, nil)
		if err != nil && ctx.Err() != nil { // any other error is in v
			*msg = waiting
			return false
		}
		body, err := json.Marshal(v)
		if err != nil {
			r.logger(c.log).Error("callback has no body", "err", err)
			msg.State, msg.LastError = CallbackGivenUp, err.Error()
			continue
		}
		msg.Body = body
	}
	return true
}

// deliver sends the due messages until each is delivered or given up, or ctx
// ends. It writes the record after each attempt.
func (c *callbacks) deliver(ctx context.Context, r *record) {
	for msg := r.next(); msg != nil; msg = r.next() {
		if !sleep(ctx, time.Until(msg.NextAt)) || !c.try(ctx, r, msg) {
			return
		}
	}
}

// try sends a message once and writes the result down. It returns false if ctx
// ended first.
func (c *callbacks) try(ctx context.Context, r *record, msg *message) bool {
	post, cancel := withGrace(ctx, callbackGrace)
	res := c.sender.Post(post, callback.Message{ID: msg.MessageID, URL: msg.URL, Body: msg.Body})
	cancel()
	if ctx.Err() != nil && !res.Delivered {
		return false
	}
	msg.setResult(res, time.Now().UTC())
	c.hooks.CallbackTried(msg.State)
	log := r.logger(c.log)
	log.Info("callback", "message", msg.MessageID, "state", msg.State, "attempts", msg.Attempts, "err", msg.LastError)
	if err := c.store.keep(r); err != nil {
		log.Error("the state of the callback was not written", "err", err)
	}
	return true
}

// withGrace returns a context that ends d after ctx does.
func withGrace(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if sleep(longer, d) {
			cancel()
		}
	})
	return longer, func() { stop(); cancel() }
}

// setResult notes the result of one attempt.
func (msg *message) setResult(res callback.Result, now time.Time) {
	msg.Attempts++
	msg.LastError = ""
	if res.Delivered {
		msg.State, msg.DeliveredAt, msg.Body = CallbackDelivered, now, nil
		return
	}
	if res.Err != nil {
		msg.LastError = res.Err.Error()
	}
	at, again := callback.Next(msg.Attempts, msg.DueSince, now, res)
	msg.NextAt = at
	if !again {
		msg.State, msg.Body = CallbackGivenUp, nil
	}
}
