package vm

import (
	"context"
	"log/slog"
	"time"
)

// Hooks are called by the Manager so that metrics can count. They return at
// once, and may be called by many goroutines at once. Nil hooks are not called.
type Hooks struct {
	// CreationEnded gets how an accepted creation ended: "" means that the
	// machine is ready. A creation that a stop of the daemon interrupts has not
	// ended.
	CreationEnded func(Code)

	// PhaseEnded gets how long a creation was in a phase.
	PhaseEnded func(Phase, time.Duration)

	// MemoryStart is called for each machine that was to start from memory and is
	// ready. It gets whether the machine did.
	MemoryStart func(bool)

	// PoolUsed is called for each creation that matches a pool. It gets whether a
	// machine waited.
	PoolUsed func(bool)

	// Restarted is called if a machine that died before its guest gave a sign
	// of life is started once more.
	Restarted func()

	// CallbackTried gets the result of one attempt to send a callback:
	// delivered, given-up, or pending if there will be another attempt.
	CallbackTried func(CallbackState)

	// CallbackDropped is called for each callback of a destroyed machine that is
	// given up because too many wait to be sent.
	CallbackDropped func()
}

// withDefaults returns hooks that can all be called.
func (h Hooks) withDefaults() Hooks {
	if h.CreationEnded == nil {
		h.CreationEnded = func(Code) {}
	}
	if h.PhaseEnded == nil {
		h.PhaseEnded = func(Phase, time.Duration) {}
	}
	if h.MemoryStart == nil {
		h.MemoryStart = func(bool) {}
	}
	if h.PoolUsed == nil {
		h.PoolUsed = func(bool) {}
	}
	if h.Restarted == nil {
		h.Restarted = func() {}
	}
	if h.CallbackTried == nil {
		h.CallbackTried = func(CallbackState) {}
	}
	if h.CallbackDropped == nil {
		h.CallbackDropped = func() {}
	}
	return h
}

type requestIDKey struct{}

// WithRequestID returns a context with the ID of the HTTP request that asks for
// a change. The log lines of that change, and of the machine's job, have it.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the ID that [WithRequestID] set, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// logger returns a logger for what happens to the record's machine.
func (r *record) logger(log *slog.Logger) *slog.Logger {
	if r.RequestID == "" {
		return log.With("vm", r.ID)
	}
	return log.With("vm", r.ID, "request_id", r.RequestID)
}
