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

// Many clients create machines with few keys, list, read and destroy them, all at once. Each key has at most one machine
// at any time, and in the end there is none.
func TestStormOfKeys(t *testing.T) {
	h := newHarness(t).open()
	const clients, rounds, keys = 8, 25, 3
	var storm sync.WaitGroup
	for c := range clients {
		storm.Go(func() {
			for n := range rounds {
				q := h.request()
				q.CallbackURL = ""
				v, err := h.vms.Create(t.Context(), q, fmt.Sprint("key", (c+n)%keys))
				if err != nil && codeOf(err) != vm.CodeBusy && codeOf(err) != vm.CodeDestroying {
					t.Errorf("Create: %v", err)
				}
				if _, err := h.vms.List(t.Context(), vm.Filter{}, everyone); err != nil {
					t.Errorf("List: %v", err)
				}
				if err == nil && n%2 == 0 {
					if err := h.vms.Destroy(t.Context(), v.ID); err != nil && codeOf(err) != vm.CodeNotFound {
						t.Errorf("Destroy: %v", err)
					}
				}
			}
		})
	}
	storm.Wait()
	all, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
	must(t, err)
	if len(all) > keys {
		t.Errorf("got %d machines of %d keys", len(all), keys)
	}
	for _, v := range all {
		must(t, h.vms.Destroy(t.Context(), v.ID))
	}
	h.wantFiles("in the end")
}
