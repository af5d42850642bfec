package vm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Who does not read is cut off, never skipped: it hears the 1024 events that
// are kept, and of one more nothing but that it is too slow.
func TestSlowListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Manager{feed: newFeed(), store: &store{dir: t.TempDir()}}
		m.ctx, m.stop = context.WithCancelCause(t.Context())
		defer m.Close()
		slow, err := m.Listen("")
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		start := slow.EventID()
		for range newsKept {
			m.feed.gone("x")
		}
		again, err := m.Listen(start)
		if err != nil || !again.Known {
			t.Fatalf("%d events late: got known %v, %v, want that nothing is missing", newsKept, again.Known, err)
		}
		for n := range newsKept {
			if e, err := again.Next(t.Context()); err != nil || e.Number != int64(n+1) {
				t.Fatalf("got event %d, %v, want %d", e.Number, err, n+1)
			}
		}
		again.Close()
		m.feed.gone("x")
		if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
			t.Errorf("got %v, want %v", err, ErrSlow)
		}
		if again, err = m.Listen(start); err != nil || again.Known {
			t.Errorf("%d events late: got known, %v, want that something is missing", newsKept+1, err)
		}
		again.Close()
	})
}

// Progress is news once a second at most, a phase at once.
func TestProgressIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		f.enter("x", Accepted, nil)
		for n := range 35 {
			f.enter("x", Downloading, &Progress{Bytes: int64(n)})
			time.Sleep(100 * time.Millisecond)
		}
		f.enter("x", Unpacking, &Progress{})
		var got []int64
		for n := int64(1); n <= f.last; n++ {
			if e := f.history[n]; e.Phase == Downloading {
				got = append(got, e.Progress.Bytes)
			}
		}
		if len(got) != 4 || got[1] != 10 || got[3] != 30 {
			t.Errorf("got progress %v, want 0, 10, 20, 30", got)
		}
		if e := f.history[f.last]; e.Phase != Unpacking {
			t.Errorf("got %+v last, want the new phase", e)
		}
	})
}
