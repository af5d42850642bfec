package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm"
)

// slowQEMU is a QEMU that holds its answers back.
type slowQEMU struct {
	dir     string
	asked   chan struct{} // a value for each query that has come
	answer  chan string   // the state that answers it
	queries atomic.Int32
}

func newSlowQEMU(t *testing.T) *slowQEMU {
	t.Helper()
	s := &slowQEMU{asked: make(chan struct{}, 100), answer: make(chan string, 100)}
	s.dir = qmpServer(t, hello, func(c net.Conn, request string) {
		if !strings.Contains(request, "query-status") {
			fmt.Fprintln(c, map[bool]string{true: `{"return": []}`, false: `{"return": {}}`}[!strings.Contains(request, "memory")])
			return
		}
		s.queries.Add(1)
		s.asked <- struct{}{}
		fmt.Fprintf(c, `{"return": {"status": %q}}`+"\n", <-s.answer)
	})
	return s
}

// readers queries the state n times at once.
func (s *slowQEMU) readers(t *testing.T, d *Driver, n int, want vm.Power) (wait func()) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			state, err := d.queryState(t.Context(), s.dir, 1)
			if err != nil || state.power != want {
				t.Errorf("got %q and error %v, want %q", state.power, err, want)
			}
		})
	}
	return all.Wait
}

// readersOf waits until the open query has n readers.
func readersOf(t *testing.T, d *Driver, n int) {
	t.Helper()
	wait(t.Context(), "the readers", func() bool {
		d.queries.mu.Lock()
		defer d.queries.mu.Unlock()
		for _, q := range d.queries.open {
			return q.readers == n
		}
		return n == 0
	})
}

// However many read a machine whose QEMU is slow, each waits for two answers at
// most, and none gets an answer to a question from before it asked.
func TestReadersShareQueries(t *testing.T) {
	s := newSlowQEMU(t)
	var d Driver
	first := s.readers(t, &d, 1, vm.PoweredOn)
	<-s.asked // later readers are not served by this query
	second := s.readers(t, &d, 40, vm.Paused)
	readersOf(t, &d, 40)
	s.answer <- "running"
	first()
	<-s.asked
	s.answer <- "paused"
	second()
	if n := s.queries.Load(); n != 2 {
		t.Errorf("got %d queries of 41 readers, want 2", n)
	}
}

// A reader may leave without harm to the others. With the last one the query
// ends, and nothing is left of it.
func TestReadersLeave(t *testing.T) {
	s := newSlowQEMU(t)
	var d Driver
	unlock, err := d.monitors.lock(t.Context(), s.dir) // somebody else is at the monitor
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	rest := s.readers(t, &d, 3, vm.PoweredOn)
	readersOf(t, &d, 3)
	if _, err := d.queryState(impatient, s.dir, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want one that wraps the context's", err)
	}
	s.answer <- "running"
	unlock()
	rest()

	<-s.asked
	impatient, cancel = context.WithCancel(t.Context())
	go func() {
		<-s.asked
		cancel()
	}()
	if _, err := d.queryState(impatient, s.dir, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want one that wraps the context's", err)
	}
	if len(d.queries.open) != 0 || len(d.monitors.locks) != 0 {
		t.Errorf("got %d queries and %d locks after the last reader left, want none", len(d.queries.open), len(d.monitors.locks))
	}
	close(s.answer)
}

func TestQueryTimeout(t *testing.T) {
	if got := queryTimeout(t.Context()); got != monitorTimeout {
		t.Errorf("got %v without a limit, want %v", got, monitorTimeout)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got := queryTimeout(ctx); got > 9*time.Second || got < agentTimeout+readinessTimeout {
		t.Errorf("got %v of 10 s, want what leaves a second for the agent", got)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if got := queryTimeout(ctx); got != monitorTimeout {
		t.Errorf("got %v of an hour, want %v", got, monitorTimeout)
	}
}
