package vm_test

import (
	"context"
	"slices"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// Ports that cannot be forwarded are refused with the name of the field.
func TestForwardIsRefused(t *testing.T) {
	h := newHarness(t).open()
	many := make([]int, 65)
	for i := range many {
		many[i] = i + 1
	}
	for name, ports := range map[string][]int{
		"zero": {0}, "negative": {-1}, "too large": {65536}, "twice": {22, 80, 22}, "too many": many,
	} {
		q := h.request()
		q.Forward = ports
		_, err := h.vms.Create(t.Context(), q, "")
		if e, _ := err.(*vm.Error); e == nil || e.Code != vm.CodeInvalidField || e.Field != "forward" {
			t.Errorf("%s: got %v, want %s for forward", name, err, vm.CodeInvalidField)
		}
	}
}

// The driver gets the ports. They are part of the request that an Idempotency-Key
// stands for, even after a restart.
func TestForwardIsKept(t *testing.T) {
	h := newHarness(t)
	started := make(chan []int, 2)
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		if s == vmtest.Start {
			started <- m.Forward
		}
		return nil
	}
	h.open()
	q := h.request()
	q.Forward = []int{8080, 65535}
	v, err := h.vms.Create(t.Context(), q, "key")
	must(t, err)
	h.wait(v.ID)
	if got := <-started; !slices.Equal(got, q.Forward) {
		t.Errorf("the driver got ports %v, want %v", got, q.Forward)
	}
	h.vms.Close()
	h.open()
	if again, err := h.vms.Create(t.Context(), q, "key"); err != nil || again.ID != v.ID {
		t.Errorf("the same request again: got %s, %v, want %s", again.ID, err, v.ID)
	}
	q.Forward = []int{8080}
	if _, err := h.vms.Create(t.Context(), q, "key"); codeOf(err) != vm.CodeIdempotencyConflict {
		t.Errorf("other ports: got %v, want %s", err, vm.CodeIdempotencyConflict)
	}
}
