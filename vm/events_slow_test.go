package vm

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// A listener that does not read gets the 1024 events that are kept. After one
// more it gets ErrSlow, and never skips an event.
func TestSlowListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(Options{Dir: t.TempDir()})
		defer m.Close()
		slow, err := m.Listen("", Owners{All: true})
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		start := slow.EventID()
		for range eventsKept {
			m.events.remove("x")
		}
		again, err := m.Listen(start, Owners{All: true})
		if err != nil || !again.Known {
			t.Fatalf("%d events late: got known %v, %v, want known", eventsKept, again.Known, err)
		}
		for n := range eventsKept {
			if e, err := again.Next(t.Context()); err != nil || e.Number != int64(n+1) {
				t.Fatalf("got event %d, %v, want %d", e.Number, err, n+1)
			}
		}
		again.Close()
		m.events.remove("x")
		if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
			t.Errorf("got %v, want %v", err, ErrSlow)
		}
		if again, err = m.Listen(start, Owners{All: true}); err != nil || again.Known {
			t.Errorf("%d events late: got known, %v, want not known", eventsKept+1, err)
		}
		again.Close()
	})
}

// With many machines as many events are kept as all of them make when they change at
// once, as they seem to when the first listener comes.
func TestListenerOfManyMachines(t *testing.T) {
	const many = 3 * eventsKept
	l := newEventLog(newTasks())
	l.watch = func(context.Context) {}
	m := &Manager{events: l}
	l.add("first", "")
	listener, err := m.Listen("", Owners{All: true})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l.setStatus("first", Status{Power: PoweredOn})
	for n := range many {
		l.restore(strconv.Itoa(n), "", Ready)
	}
	for n := range many {
		l.setStatus(strconv.Itoa(n), Status{Power: PoweredOn})
	}
	for n := range many + 1 {
		if e, err := listener.Next(t.Context()); err != nil || e.Number != int64(n+2) || e.Status != PoweredOn {
			t.Fatalf("got event %+v, %v, want number %d", e, err, n+2)
		}
	}
}

// Progress is published once a second at most, a phase at once.
func TestProgressIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newEventLog(newTasks())
		l.setPhase("x", Accepted, nil)
		for n := range 35 {
			l.setPhase("x", Downloading, &Progress{Bytes: int64(n)})
			time.Sleep(100 * time.Millisecond)
		}
		l.setPhase("x", Unpacking, &Progress{})
		var got []int64
		for n := int64(1); n <= l.last; n++ {
			if e := l.events[n]; e.Phase == Downloading {
				got = append(got, e.Progress.Bytes)
			}
		}
		if len(got) != 4 || got[1] != 10 || got[3] != 30 {
			t.Errorf("got progress %v, want 0, 10, 20, 30", got)
		}
		if e := l.events[l.last]; e.Phase != Unpacking {
			t.Errorf("got %+v last, want the new phase", e)
		}
	})
}
