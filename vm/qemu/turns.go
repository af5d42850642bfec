package qemu

import (
	"context"
	"sync"
)

// turns hands out one turn at a time for each key. QEMU's monitor serves one
// client and lets the next wait unseen, so those who ask one machine at once
// queue here, where the wait can be given up.
type turns struct {
	mu sync.Mutex
	by map[string]*queue // guarded by mu; a key without takers has none
}

type queue struct {
	turn   chan struct{} // holds one value while the turn is taken
	takers int           // guarded by turns.mu
}

// take waits for the key's turn and returns what gives it back.
func (t *turns) take(ctx context.Context, key string) (giveBack func(), err error) {
	t.mu.Lock()
	if t.by == nil {
		t.by = map[string]*queue{}
	}
	q := t.by[key]
	if q == nil {
		q = &queue{turn: make(chan struct{}, 1)}
		t.by[key] = q
	}
	q.takers++
	t.mu.Unlock()

	select {
	case q.turn <- struct{}{}:
		return func() { <-q.turn; t.leave(key, q) }, nil
	case <-ctx.Done():
		t.leave(key, q)
		return nil, context.Cause(ctx)
	}
}

func (t *turns) leave(key string, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.takers--; q.takers == 0 {
		delete(t.by, key)
	}
}
