package qemu

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

// stateQueries reads the state of machines. Concurrent readers of one machine
// share a query that QEMU has not greeted yet. So an answer is never older than
// the question of any of its readers, and if QEMU is slow, each reader waits for
// at most two answers, however many readers there are.
type stateQueries struct {
	monitors *qmp.Client

	mu   sync.Mutex
	open map[queryKey]*stateQuery // guarded by mu
}

type queryKey struct {
	dir string
	pid int
}

// stateQuery is one query and its readers.
type stateQuery struct {
	cancel  context.CancelFunc
	readers int           // guarded by stateQueries.mu
	done    chan struct{} // closed once state and err are set
	state   liveState
	err     error
}

// read asks the QEMU of the machine in dir, the process pid, for its state. It
// takes at most queryTimeout(ctx).
func (s *stateQueries) read(ctx context.Context, dir string, pid int) (liveState, error) {
	ctx, cancel := qmp.WithTimeout(ctx, queryTimeout(ctx))
	defer cancel()
	key := queryKey{dir, pid}
	q := s.join(ctx, key)
	select {
	case <-q.done:
		return q.state, q.err
	case <-ctx.Done():
		s.leave(key, q)
		return liveState{}, fmt.Errorf("waiting for an answer of QEMU: %w", context.Cause(ctx))
	}
}

// queryTimeout bounds QEMU's answer. The rest of ctx's time is left for the
// guest's agent, and for an error that says what to do.
func queryTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return qmp.Timeout
	}
	return min(qmp.Timeout, time.Until(deadline)*9/10)
}

// join makes the caller a reader of the open query for key, and starts one if
// there is none. The query ends when its last reader leaves, not with ctx.
func (s *stateQueries) join(ctx context.Context, key queryKey) *stateQuery {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.open[key]; q != nil {
		q.readers++
		return q
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	q := &stateQuery{cancel: cancel, readers: 1, done: make(chan struct{})}
	if s.open == nil {
		s.open = map[queryKey]*stateQuery{}
	}
	s.open[key] = q
	go func() {
		defer close(q.done)
		defer cancel()
		defer s.close(key, q)
		q.state, q.err = s.run(ctx, key, func() { s.close(key, q) })
	}()
	return q
}

// run asks until QEMU answers, until its process is gone, or until ctx ends. A
// QEMU that starts does not listen yet, and one that ends hangs up. run calls
// greeted before it asks.
func (s *stateQueries) run(ctx context.Context, key queryKey, greeted func()) (state liveState, err error) {
	var answer error
	err = process.Wait(ctx, "an answer of QEMU", func() bool {
		answer = s.monitors.WithMonitor(ctx, filepath.Join(key.dir, qmpSocket), func(m *qmp.Monitor) error {
			greeted()
			return state.ask(m)
		})
		return answer == nil || !process.Holds(key.dir, key.pid)
	})
	if err != nil {
		return liveState{}, fmt.Errorf("%w: %w", err, answer)
	}
	return state, answer
}

// close accepts no more readers for q.
func (s *stateQueries) close(key queryKey, q *stateQuery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] == q {
		delete(s.open, key)
	}
}

// leave removes a reader from q. The last one cancels the query and waits for
// its end.
func (s *stateQueries) leave(key queryKey, q *stateQuery) {
	s.mu.Lock()
	q.readers--
	last := q.readers == 0
	if last && s.open[key] == q {
		delete(s.open, key)
	}
	s.mu.Unlock()
	if last {
		q.cancel()
		<-q.done
	}
}
