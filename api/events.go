package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

const (
	// keepAliveInterval is the time between comments in a stream without events. Proxies see that the stream is alive,
	// and the daemon notices that a client has disconnected.
	keepAliveInterval = 15 * time.Second

	// reconnectMillis is the time that an EventSource waits before it reconnects.
	reconnectMillis = 2000
)

// events is GET /events: Server-Sent Events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
func (a *api) events(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	only := r.URL.Query().Get("vm")
	if only != "" {
		var err error
		if only, err = a.vms.Resolve(only, visible(r)); err != nil {
			return err
		}
	}
	after := r.Header.Get("Last-Event-ID")
	l, err := a.vms.Listen(after, visible(r))
	if err != nil {
		return err
	}
	defer l.Close()
	markWaiting(w)
	s := newStream(w, "text/event-stream")
	first := ""
	switch {
	case after == "":
		first = sse("hello", l.EventID(), struct{}{})
	case !l.Known:
		first = sse("reset", l.EventID(), struct{}{})
	}
	if err := s.send(fmt.Sprintf("retry: %d\n\n%s", reconnectMillis, first)); err != nil {
		return nil // the client has disconnected
	}
	for {
		e, err := nextEvent(r.Context(), l, only)
		switch {
		case r.Context().Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			err = s.send(": keep-alive\n\n")
		case errors.Is(err, vm.ErrSlow):
			a.Log.Warn("slow event listener disconnected", "request_id", requestID(r), "err", err)
		case err == nil:
			err = s.send(eventText(l.EventID(), e))
		}
		if err != nil {
			return nil // the answer has begun, so it just ends; the client reconnects
		}
	}
}

// nextEvent waits for the next event of the machine only, or of any machine if only is empty. It waits at most until
// the next keep-alive is due. Events of other machines do not delay the keep-alive.
func nextEvent(ctx context.Context, l *vm.Listener, only string) (vm.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, keepAliveInterval)
	defer cancel()
	for {
		e, err := l.Next(ctx)
		if err != nil || only == "" || only == e.ID {
			return e, err
		}
		if ctx.Err() != nil { // Next returns events that have already happened even after ctx has ended
			return vm.Event{}, context.Cause(ctx)
		}
	}
}

func eventText(id string, e vm.Event) string {
	if !e.Gone {
		return sse("vm", id, e)
	}
	return sse("gone", id, struct {
		ID string    `json:"id"`
		At time.Time `json:"at"`
	}{e.ID, e.At})
}

// sse formats one Server-Sent Event. JSON without indentation is one line.
func sse(name, id string, data any) string {
	b, err := json.Marshal(data)
	if err != nil {
		panic(fmt.Sprintf("writing %v as JSON: %v", data, err)) // strings, numbers and times always marshal
	}
	return fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", id, name, b)
}
