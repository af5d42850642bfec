package vm

import (
	"context"
	"sync"
	"time"
)

// tasks are the Manager's goroutines. None begins after close, which waits for
// those that run.
type tasks struct {
	ctx    context.Context // of all goroutines; its cause says why they are to stop
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards what follows
	stopping bool
	running  sync.WaitGroup
}

func newTasks() *tasks {
	t := &tasks{}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// begin counts the caller among the goroutines that close waits for, until it
// calls end. It returns false, and counts nothing, after close.
func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		return false
	}
	t.running.Add(1)
	return true
}

func (t *tasks) end() { t.running.Done() }

// run calls f in a goroutine of its own. It returns false, and calls nothing,
// after close.
func (t *tasks) run(f func()) bool {
	if !t.begin() {
		return false
	}
	go func() {
		defer t.end()
		f()
	}()
	return true
}

// stopped reports whether close was called.
func (t *tasks) stopped() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stopping
}

// close ends ctx with the given cause and waits for all goroutines.
func (t *tasks) close(cause error) {
	t.mu.Lock()
	t.stopping = true
	t.mu.Unlock()
	t.cancel(cause)
	t.running.Wait()
}

// sleep waits for d and reports whether it did: false means that ctx ended
// first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
