package vm_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"osx-builder/vm"
)

// A machine may be destroyed while the request that created it has not been
// answered yet: a client finds it in the list. Its key is then free again.
func TestDestroyBeforeCreateReturns(t *testing.T) {
	h := newHarness(t).open()
	const creations = 12
	ids := make([]string, creations)
	var creating, destroying sync.WaitGroup
	created := make(chan struct{})
	destroying.Go(func() {
		for running := true; running; {
			select {
			case <-created:
				running = false
			default:
			}
			for _, name := range h.files() {
				id, ok := strings.CutSuffix(name, ".json")
				if err := h.vms.Destroy(t.Context(), id); ok && err != nil && codeOf(err) != vm.CodeNotFound {
					t.Errorf("Destroy: %v", err)
				}
			}
		}
	})
	for n := range creations {
		creating.Go(func() {
			q := h.request()
			q.CallbackURL = ""
			v, err := h.vms.Create(t.Context(), q, fmt.Sprint("key", n))
			if err != nil {
				t.Errorf("Create: %v", err)
			}
			ids[n] = v.ID
		})
	}
	creating.Wait()
	close(created)
	destroying.Wait()
	for n := range creations {
		q := h.request()
		q.CPUs = 1 // with the key of a machine that exists this is a conflict
		v, err := h.vms.Create(t.Context(), q, fmt.Sprint("key", n))
		if err != nil || slices.Contains(ids, v.ID) {
			t.Errorf("key %d again: got %s, %v, want a new machine", n, v.ID, err)
		}
	}
}
