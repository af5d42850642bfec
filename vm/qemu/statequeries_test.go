package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
	"osx-builder/vm/qemu/qmp/qmptest"
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
	socket := qmptest.Serve(t, qmptest.Greeting, func(c net.Conn, request string) {
		if !strings.Contains(request, "query-status") {
			fmt.Fprintln(c, map[bool]string{true: `{"return": []}`, false: `{"return": {}}`}[!strings.Contains(request, "memory")])
			return
		}
		s.queries.Add(1)
		s.asked <- struct{}{}
		fmt.Fprintf(c, `{"return": {"status": %q}}`+"\n", <-s.answer)
	})
	s.dir = filepath.Dir(socket)
	return s
}

// readers queries the state n times at once.
func (s *slowQEMU) readers(t *testing.T, q *stateQueries, n int, want vm.Power) (wait func()) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			state, err := q.read(t.Context(), s.dir, 1)
			if err != nil || state.power != want {
				t.Errorf("got %q and error %v, want %q", state.power, err, want)
			}
		})
	}
	return all.Wait
}

// readersOf waits until the open query has n readers.
func readersOf(t *testing.T, q *stateQueries, n int) {
	t.Helper()
	_ = process.Wait(t.Context(), "the readers", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, open := range q.open {
			return open.readers == n
		}
		return n == 0
	})
}

// However many read a machine whose QEMU is slow, each waits for two answers at
// most, and none gets an answer to a question from before it asked.
func TestReadersShareQueries(t *testing.T) {
	s := newSlowQEMU(t)
	var monitors qmp.Client
	q := &stateQueries{monitors: &monitors}
	first := s.readers(t, q, 1, vm.PoweredOn)
	<-s.asked // later readers are not served by this query
	second := s.readers(t, q, 40, vm.Paused)
	readersOf(t, q, 40)
	s.answer <- "running"
	first()
	<-s.asked
	s.answer <- "paused"
	second()
	if n := s.queries.Load(); n != 2 {
		t.Errorf("got %d queries of 41 readers, want 2", n)
	}
}

// useMonitor keeps other callers from the monitor until the returned function is
// called.
func useMonitor(t *testing.T, monitors *qmp.Client, socket string) (release func()) {
	t.Helper()
	used, released := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- monitors.WithMonitor(t.Context(), socket, func(*qmp.Monitor) error {
			close(used)
			<-released
			return nil
		})
	}()
	select {
	case <-used:
	case err := <-ended:
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		close(released)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// A reader may leave without harm to the others. With the last one the query
// ends, and nothing is left of it.
func TestReadersLeave(t *testing.T) {
	s := newSlowQEMU(t)
	var monitors qmp.Client
	q := &stateQueries{monitors: &monitors}
	unlock := useMonitor(t, &monitors, filepath.Join(s.dir, qmpSocket))
	impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	rest := s.readers(t, q, 3, vm.PoweredOn)
	readersOf(t, q, 3)
	if _, err := q.read(impatient, s.dir, 1); !errors.Is(err, context.DeadlineExceeded) {
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
	if _, err := q.read(impatient, s.dir, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want one that wraps the context's", err)
	}
	if len(q.open) != 0 || monitors.Sockets() != 0 {
		t.Errorf("got %d queries and %d locks after the last reader left, want none", len(q.open), monitors.Sockets())
	}
	close(s.answer)
}

func TestQueryTimeout(t *testing.T) {
	if got := queryTimeout(t.Context()); got != qmp.Timeout {
		t.Errorf("got %v without a limit, want %v", got, qmp.Timeout)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got := queryTimeout(ctx); got > 9*time.Second || got < qmp.AgentTimeout {
		t.Errorf("got %v of 10 s, want what leaves a second for the agent", got)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if got := queryTimeout(ctx); got != qmp.Timeout {
		t.Errorf("got %v of an hour, want %v", got, qmp.Timeout)
	}
}

func TestPowerOf(t *testing.T) {
	for state, want := range map[string]string{
		"running": "powered-on", "paused": "paused", "prelaunch": "powering-on", "shutdown": "powered-off",
		"suspended": "suspended", "io-error": "blocked", "guest-panicked": "blocked", "watchdog": "paused",
	} {
		if got := powerOf(state); string(got) != want {
			t.Errorf("got %q for %s, want %q", got, state, want)
		}
	}
}
