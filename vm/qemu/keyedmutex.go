package qemu

import (
	"context"
	"sync"
)

// keyedMutex is one mutex for each key. QEMU's monitor serves one client and
// lets the next wait unseen, so those who ask one machine at once queue here,
// where the wait can be given up. They are served in their order.
type keyedMutex struct {
	mu    sync.Mutex
	locks map[string]*keyLock // guarded by mu; a key without users has none
}

type keyLock struct {
	held  chan struct{} // has one value while the lock is held
	users int           // who hold it or wait for it; guarded by keyedMutex.mu
}

// lock waits for the key's lock and returns what releases it.
func (k *keyedMutex) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyLock{}
	}
	l := k.locks[key]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()

	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; k.leave(key, l) }, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, context.Cause(ctx)
	}
}

func (k *keyedMutex) leave(key string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, key)
	}
}
