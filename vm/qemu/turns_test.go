package qemu

import (
	"context"
	"errors"
	"testing"
)

// A key's turn is one's alone until it is given back; the wait for it can be
// given up; other keys are free; what nobody uses takes no memory.
func TestTurns(t *testing.T) {
	var all turns
	ctx, cancel := context.WithCancel(t.Context())
	giveBack, err := all.take(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := all.take(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	other()

	waits := make(chan error)
	go func() {
		_, err := all.take(ctx, "a")
		waits <- err
	}()
	select {
	case err := <-waits:
		t.Fatalf("got a second turn (%v) while the first is taken", err)
	default:
	}
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v of a wait given up, want the context's", err)
	}
	giveBack()
	if len(all.by) != 0 {
		t.Errorf("got %d keys after all was given back, want none", len(all.by))
	}
}
