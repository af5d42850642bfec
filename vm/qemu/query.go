package qemu

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// stateQueries are the queries that readers of a machine's state can still
// share: those that QEMU has not greeted yet. So an answer is never older than
// the question of any of its readers, and however many read a machine whose QEMU
// is slow, each waits for two answers at most.
type stateQueries struct {
	mu   sync.Mutex
	open map[queryKey]*stateQuery // guarded by mu
}

type queryKey struct {
	dir string
	pid int
}

// stateQuery is one query and those who read its answer.
type stateQuery struct {
	cancel  context.CancelFunc
	readers int           // guarded by stateQueries.mu
	done    chan struct{} // closed once state and err are set
	state   liveState
	err     error
}

// queryState asks the machine's QEMU, the process pid, for its state. It takes
// most of ctx's time if it must.
func (d *Driver) queryState(ctx context.Context, dir string, pid int) (liveState, error) {
	ctx, cancel := withMonitorTimeout(ctx, queryTimeout(ctx))
	defer cancel()
	key := queryKey{dir, pid}
	q := d.joinQuery(ctx, key)
	select {
	case <-q.done:
		return q.state, q.err
	case <-ctx.Done():
		d.queries.leave(key, q)
		return liveState{}, fmt.Errorf("waiting for an answer of QEMU: %w", context.Cause(ctx))
	}
}

// queryTimeout is how long QEMU may take to answer. The rest of ctx's time is
// for the guest's agent, and for an error that says what to do.
func queryTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return monitorTimeout
	}
	return min(monitorTimeout, time.Until(deadline)*9/10)
}

// joinQuery makes the caller a reader of the open query for key, which it starts
// if there is none. The query ends when it has lost all readers, not with ctx.
func (d *Driver) joinQuery(ctx context.Context, key queryKey) *stateQuery {
	s := &d.queries
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
		q.state, q.err = d.runQuery(ctx, key, func() { s.close(key, q) })
	}()
	return q
}

// runQuery asks until QEMU answers, is gone, or ctx ends: a QEMU that starts
// does not listen yet, and one that ends hangs up. It calls greeted before it
// asks.
func (d *Driver) runQuery(ctx context.Context, key queryKey, greeted func()) (state liveState, err error) {
	var answer error
	err = wait(ctx, "an answer of QEMU", func() bool {
		answer = d.withMonitor(ctx, key.dir, func(q monitor) error {
			greeted()
			return state.ask(q)
		})
		return answer == nil || !holds(key.dir, key.pid)
	})
	if err != nil {
		return liveState{}, fmt.Errorf("%w: %w", err, answer)
	}
	return state, answer
}

// shut lets q take no more readers.
func (s *stateQueries) close(key queryKey, q *stateQuery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] == q {
		delete(s.open, key)
	}
}

// leave takes a reader from q. The last one ends the query and waits for its end.
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
