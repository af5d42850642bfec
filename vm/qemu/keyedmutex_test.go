package qemu

import (
	"context"
	"errors"
	"testing"
)

// A key's lock is held by one at a time; the wait for it can be given up; other
// keys are free; a key that nobody uses takes no memory.
func TestKeyedMutex(t *testing.T) {
	var locks keyedMutex
	ctx, cancel := context.WithCancel(t.Context())
	unlock, err := locks.lock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := locks.lock(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	other()

	waits := make(chan error)
	go func() {
		_, err := locks.lock(ctx, "a")
		waits <- err
	}()
	select {
	case err := <-waits:
		t.Fatalf("got a second lock (%v) while the first is held", err)
	default:
	}
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v of a wait given up, want the context's", err)
	}
	unlock()
	if len(locks.locks) != 0 {
		t.Errorf("got %d keys after each was unlocked, want none", len(locks.locks))
	}
}
