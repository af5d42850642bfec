package vm

import "sync"

// idempotencyKeys knows which machine each Idempotency-Key of each owner stands
// for. It is in memory only: Open builds it again from the records, which carry
// their keys.
type idempotencyKeys struct {
	mu    sync.Mutex
	byKey map[ownedKey]*reservation // guarded by mu
}

// ownedKey is an Idempotency-Key of an owner. Owners do not share keys: an answer
// would show one the machine of another.
type ownedKey struct{ owner, key string }

// reservation is an Idempotency-Key in use.
type reservation struct {
	key  ownedKey
	done chan struct{} // closed once the creation was accepted or refused

	// id is the machine of the key, "" if its creation was refused. It is
	// guarded by idempotencyKeys.mu until done is closed, and final then.
	id string
}

// reserve returns the key's reservation. isNew means that the caller made it,
// and ends it by a call of complete.
func (k *idempotencyKeys) reserve(key ownedKey) (r *reservation, isNew bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.byKey[key]; r != nil {
		return r, false
	}
	r = &reservation{key: key, done: make(chan struct{})}
	k.byKey[key] = r
	return r, true
}

// setMachine says which machine the reservation is for. It comes before the
// record is written, so that a destruction frees the key at any time.
func (k *idempotencyKeys) setMachine(r *reservation, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r.id = id
}

// complete ends a reservation: accepted says whether its machine exists.
func (k *idempotencyKeys) complete(r *reservation, accepted bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !accepted {
		r.id = ""
		k.remove(r)
	}
	close(r.done)
}

// free frees the key of a completed reservation if it still has it.
func (k *idempotencyKeys) free(r *reservation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remove(r)
}

// freeMachine frees the key of a machine that does not exist any more.
func (k *idempotencyKeys) freeMachine(key ownedKey, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.byKey[key]; r != nil && r.id == id {
		delete(k.byKey, key)
	}
}

// restore adds the key of a machine that an earlier Manager left.
func (k *idempotencyKeys) restore(key ownedKey, id string) {
	r := &reservation{key: key, done: make(chan struct{}), id: id}
	close(r.done)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byKey[key] = r
}

// remove needs mu held.
func (k *idempotencyKeys) remove(r *reservation) {
	if k.byKey[r.key] == r {
		delete(k.byKey, r.key)
	}
}
