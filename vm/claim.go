package vm

import (
	"context"
	"fmt"
	"reflect"
)

// claim is an Idempotency-Key in use. The index is in memory alone and is
// made anew at Open from the records, which carry their keys.
type claim struct {
	done chan struct{} // closed once id is set or the key is free again
	id   string        // the machine of the key; "" where its creation was refused
}

func settledClaim(id string) *claim {
	c := &claim{done: make(chan struct{}), id: id}
	close(c.done)
	return c
}

// claim returns the key's claim, and whether the caller is the one to fulfil it.
func (m *Manager) claim(key string) (c *claim, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.keys[key]; c != nil {
		return c, false
	}
	c = &claim{done: make(chan struct{})}
	m.keys[key] = c
	return c, true
}

// settleClaim ends a claim with the machine that it made, or frees its key.
func (m *Manager) settleClaim(key string, c *claim, id string) {
	c.id = id
	if id == "" {
		m.freeKey(key, c)
	}
	close(c.done)
}

// freeKey frees a key if c still holds it.
func (m *Manager) freeKey(key string, c *claim) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys[key] == c {
		delete(m.keys, key)
	}
}

// repeated answers a key that was used before: the machine of then, where the
// request is the same and the machine still there.
func (m *Manager) repeated(ctx context.Context, id string, s spec) (v VM, found bool, err error) {
	if id == "" {
		return VM{}, false, nil
	}
	j := m.job(id)
	r, err := m.record(id)
	if err != nil {
		if known := clientError(err); known.Code != CodeNotFound {
			return VM{}, true, known
		}
		return VM{}, false, nil
	}
	if !reflect.DeepEqual(r.Spec, s) {
		return VM{}, true, &Error{
			Code:    CodeIdempotencyConflict,
			Message: fmt.Sprintf("this Idempotency-Key made machine %s from another request; use a new key", id),
		}
	}
	v, err = m.describe(ctx, r, j)
	return v, true, err
}
