// Package keyedmutex has a mutex for each of any number of keys.
package keyedmutex

import (
	"context"
	"sync"
)

// Mutex is one mutex for each key. Callers that wait for the same key are served
// in their order and can give up. The zero value is ready for use.
type Mutex struct {
	mu    sync.Mutex
	locks map[string]*lock // guarded by mu; a key without users has none
}

type lock struct {
	held  chan struct{} // has one value while the lock is held
	users int           // callers that hold the lock or wait for it; guarded by Mutex.mu
}

// Lock waits for the key's lock and returns a function that releases it. If ctx
// ends first, the error is its cause.
func (m *Mutex) Lock(ctx context.Context, key string) (unlock func(), err error) {
	m.mu.Lock()
	if m.locks == nil {
		m.locks = map[string]*lock{}
	}
	l := m.locks[key]
	if l == nil {
		l = &lock{held: make(chan struct{}, 1)}
		m.locks[key] = l
	}
	l.users++
	m.mu.Unlock()

	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; m.leave(key, l) }, nil
	case <-ctx.Done():
		m.leave(key, l)
		return nil, context.Cause(ctx)
	}
}

// Len returns the number of keys that are locked or waited for.
func (m *Mutex) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.locks)
}

func (m *Mutex) leave(key string, l *lock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(m.locks, key)
	}
}
