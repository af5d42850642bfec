package callback_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"osx-builder/callback"
)

var errStop = errors.New("the daemon stops")

func cancelCause(t *testing.T) (context.Context, context.CancelCauseFunc) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	return ctx, cancel
}

func TestPostTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t, callback.Options{Transport: roundTrip(hang)})
		start := time.Now()
		res := s.Post(t.Context(), callback.Message{ID: "1", URL: "http://ci.example/hook"})
		want(t, res.Err, "posting to http://ci.example/hook: no answer within 10s")
		if errors.Is(res.Err, context.DeadlineExceeded) || errors.Is(res.Err, context.Canceled) {
			t.Errorf("got %v wrapped, want another error than that of an interruption", res.Err)
		}
		if d := time.Since(start); d != callback.Timeout {
			t.Errorf("it took %v, want %v", d, callback.Timeout)
		}
	})
}

// The status decides: if the body never ends, the attempt succeeds all the same.
func TestPostHangingBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t, callback.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body, w := io.Pipe()
			context.AfterFunc(r.Context(), func() { w.CloseWithError(r.Context().Err()) })
			res := answer(200)
			res.Body = body
			return res, nil
		})})
		start := time.Now()
		if res := s.Post(t.Context(), callback.Message{ID: "1", URL: "http://ci.example"}); !res.Delivered {
			t.Errorf("got %+v, want Delivered", res)
		}
		if d := time.Since(start); d > callback.Timeout {
			t.Errorf("it took %v, want at most %v", d, callback.Timeout)
		}
	})
}

func TestPostCancelled(t *testing.T) {
	for name, host := range map[string]string{
		"while the receiver is silent":     "idle.example",
		"while waiting at a busy receiver": "busy.example",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSender(t, callback.Options{Transport: roundTrip(hang)})
				ctx, cancel := cancelCause(t)
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() { s.Post(ctx, callback.Message{ID: "0", URL: "http://busy.example"}) })
				}
				synctest.Wait()
				time.AfterFunc(time.Second, func() { cancel(errStop) })
				start := time.Now()
				res := s.Post(ctx, callback.Message{ID: "1", URL: "http://" + host})
				if !errors.Is(res.Err, errStop) || time.Since(start) != time.Second {
					t.Errorf("got %v after %v, want %v after 1s", res.Err, time.Since(start), errStop)
				}
				wg.Wait()
			})
		})
	}
}

// A hundred documents for a receiver that hangs do not delay those for another one. No receiver gets more than four at
// once.
func TestSlowReceiverDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow, most atomic.Int64
		s := newSender(t, callback.Options{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Hostname() == "fast.example" {
				return answer(200), nil
			}
			most.Store(max(most.Load(), slow.Add(1)))
			defer slow.Add(-1)
			return hang(r)
		})})
		ctx, cancel := cancelCause(t)
		var wg sync.WaitGroup
		names := []string{"http://slow.example", "http://slow.example:80/a", "http://SLOW.example/b?c"}
		for i := range 100 {
			wg.Go(func() { s.Post(ctx, callback.Message{ID: "1", URL: names[i%len(names)]}) })
		}
		synctest.Wait()
		start := time.Now()
		res := s.Post(t.Context(), callback.Message{ID: "2", URL: "http://fast.example"})
		if !res.Delivered || time.Since(start) != 0 {
			t.Errorf("got %+v after %v, want Delivered at once", res, time.Since(start))
		}
		cancel(errStop)
		wg.Wait()
		if most.Load() != 4 {
			t.Errorf("got %d attempts at the slow receiver at once, want 4", most.Load())
		}
	})
}

// MaxInFlight bounds all attempts together, and all of them are made.
func TestMaxInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, delivered atomic.Int64
		s := newSender(t, callback.Options{MaxInFlight: 6, Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Second)
			return answer(204), nil
		})})
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 30 {
			wg.Go(func() {
				m := callback.Message{ID: "1", URL: fmt.Sprintf("http://host%d.example", i%10)}
				if s.Post(t.Context(), m).Delivered {
					delivered.Add(1)
				}
			})
		}
		wg.Wait()
		if delivered.Load() != 30 || most.Load() != 6 || time.Since(start) != 5*time.Second {
			t.Errorf("got %d delivered, at most %d at once, in %v; want 30, 6, 5s", delivered.Load(), most.Load(), time.Since(start))
		}
	})
}

// Attempts that are cancelled while they wait release their slots.
func TestCancelledAttemptsReleaseSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t, callback.Options{MaxInFlight: 1, Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return answer(200), nil
		})})
		ctx, cancel := cancelCause(t)
		var wg sync.WaitGroup
		wg.Go(func() { s.Post(t.Context(), callback.Message{ID: "1", URL: "http://first.example"}) })
		synctest.Wait()
		for range 10 {
			wg.Go(func() { s.Post(ctx, callback.Message{ID: "2", URL: "http://second.example"}) })
		}
		synctest.Wait()
		cancel(errStop)
		start := time.Now()
		res := s.Post(t.Context(), callback.Message{ID: "3", URL: "http://second.example"})
		if !res.Delivered || time.Since(start) != 2*time.Second {
			t.Errorf("got %+v after %v, want Delivered after 2s", res, time.Since(start))
		}
		wg.Wait()
	})
}
