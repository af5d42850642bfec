package keyedmutex_test

import (
	"context"
	"errors"
	"testing"

	"osx-builder/vm/qemu/keyedmutex"
)

// One caller holds a key's lock at a time, another can give up waiting for it,
// other keys are free, and an unused key takes no memory.
func TestKeyedMutex(t *testing.T) {
	var locks keyedmutex.Mutex
	ctx, cancel := context.WithCancel(t.Context())
	unlock, err := locks.Lock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := locks.Lock(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	other()

	waits := make(chan error)
	go func() {
		_, err := locks.Lock(ctx, "a")
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
	if locks.Len() != 0 {
		t.Errorf("got %d keys after each was unlocked, want none", locks.Len())
	}
}
