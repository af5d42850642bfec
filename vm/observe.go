package vm

import (
	"context"
	"log/slog"
	"time"
)

// Hooks are called for whoever counts. They return at once, and may be called
// by many goroutines at once. Those that are nil are not called.
type Hooks struct {
	// Created tells that a creation that was accepted has ended, and how: ""
	// is a machine that is ready. One that a stop of the daemon interrupts
	// has not ended.
	Created func(Code)

	// Passed tells how long a creation was in a phase that it has left for
	// the next.
	Passed func(Phase, time.Duration)

	// CalledBack tells what a try to send a callback came to: delivered,
	// given-up, or pending where it is tried again.
	CalledBack func(CallbackState)
}

func (h Hooks) orNothing() Hooks {
	if h.Created == nil {
		h.Created = func(Code) {}
	}
	if h.Passed == nil {
		h.Passed = func(Phase, time.Duration) {}
	}
	if h.CalledBack == nil {
		h.CalledBack = func(CallbackState) {}
	}
	return h
}

type requestIDKey struct{}

// WithRequestID gives the calls that change a machine the name of the request
// that asks for it. The lines that they and the machine's job log carry it.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID is the name that WithRequestID gave, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// logOf is the log of a machine's job.
func (m *Manager) logOf(r *record) *slog.Logger {
	if r.RequestID == "" {
		return m.Log.With("vm", r.ID)
	}
	return m.Log.With("vm", r.ID, "request_id", r.RequestID)
}
