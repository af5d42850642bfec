package callback_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"osx-builder/callback"
)

var started = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestNextDelaysGrow(t *testing.T) {
	for attempts, delay := range []time.Duration{
		0, time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute,
		30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
	} {
		least, most := callback.Lifetime, time.Duration(0)
		for range 500 {
			at, again := callback.Next(attempts, started, started, callback.Result{})
			if !again {
				t.Fatalf("after %d attempts: got no next attempt", attempts)
			}
			least, most = min(least, at.Sub(started)), max(most, at.Sub(started))
		}
		if least < delay*8/10 || most > delay*12/10 {
			t.Errorf("after %d attempts: got %v to %v, want within a fifth of %v", attempts, least, most, delay)
		}
		if delay > 0 && most-least < delay*2/10 {
			t.Errorf("after %d attempts: got only %v to %v, want jitter", attempts, least, most)
		}
	}
}

func TestNextEnds(t *testing.T) {
	for _, tc := range []struct {
		name     string
		attempts int
		age      time.Duration // since started
		result   callback.Result
		again    bool
		least    time.Duration // the wait
		most     time.Duration
	}{
		{"delivered", 1, 0, callback.Result{Delivered: true}, false, 0, 0},
		{"gone", 1, 0, callback.Result{Gone: true}, false, 0, 0},
		{"first attempt, after a long downtime", 0, 48 * time.Hour, callback.Result{}, true, 0, 0},
		{"a day old", 3, callback.Lifetime, callback.Result{}, false, 0, 0},
		{"nearly a day old, one more attempt at the end", 9, 23 * time.Hour, callback.Result{}, true, time.Hour, time.Hour},
		{"the receiver asks for more time", 1, 0, callback.Result{RetryAfter: time.Hour}, true, time.Hour, time.Hour},
		{"the receiver asks for less time", 6, 0, callback.Result{RetryAfter: time.Second}, true, 24 * time.Minute, 36 * time.Minute},
		{"the receiver asks for more than is left", 1, 20 * time.Hour, callback.Result{RetryAfter: callback.Lifetime}, true, 4 * time.Hour, 4 * time.Hour},
		{"the clock was set back by years", 2, -10 * 365 * 24 * time.Hour, callback.Result{RetryAfter: 1 << 62}, true, 5 * time.Second, callback.Lifetime},
		{"the largest number of attempts", 20, 0, callback.Result{}, false, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := started.Add(tc.age)
			at, again := callback.Next(tc.attempts, started, now, tc.result)
			if again != tc.again {
				t.Fatalf("got again %v, want %v", again, tc.again)
			}
			if wait := at.Sub(now); again && (wait < tc.least || wait > tc.most) {
				t.Errorf("got a wait of %v, want %v to %v", wait, tc.least, tc.most)
			}
		})
	}
}

// A receiver that never answers gets eleven to fourteen attempts, the last one exactly a day after the first.
func TestNextCoversADay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now, attempts := started, 0
		for {
			at, again := callback.Next(attempts, started, now, callback.Result{})
			if !again {
				break
			}
			if at.Before(now) {
				rt.Fatalf("got %v, before %v", at, now)
			}
			now = at
			attempts++
		}
		if now.Sub(started) != callback.Lifetime || attempts < 11 || attempts > 14 {
			rt.Errorf("got %d attempts in %v, want 11 to 14 in %v", attempts, now.Sub(started), callback.Lifetime)
		}
	})
}

// With any clock, no wait is negative or longer than Lifetime, and the attempts end.
func TestNextWithAnyClock(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := callback.Result{RetryAfter: time.Duration(rapid.Int64().Draw(rt, "retryAfter"))}
		for attempts := 0; ; attempts++ {
			now := time.Unix(rapid.Int64Range(-1<<36, 1<<36).Draw(rt, "now"), 0)
			at, again := callback.Next(attempts, started, now, r)
			if !again {
				return
			}
			if attempts > 100 {
				rt.Fatal("the attempts do not end")
			}
			if wait := at.Sub(now); wait < 0 || wait > callback.Lifetime {
				rt.Fatalf("got a wait of %v", wait)
			}
		}
	})
}
