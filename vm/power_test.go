package vm_test

import (
	"testing"
	"time"

	"osx-builder/vm"
)

// The power of a machine can be changed as soon as a client has read that it is ready.
func TestPowerRightAfterReady(t *testing.T) {
	h := newHarness(t).open()
	for range 20 {
		v := h.create(h.request())
		for deadline := time.Now().Add(hangTimeout); v.Phase != vm.Ready && time.Now().Before(deadline); {
			var err error
			v, err = h.vms.Get(t.Context(), v.ID)
			must(t, err)
		}
		if _, err := h.vms.Power(t.Context(), v.ID, vm.ActionOn); err != nil {
			t.Fatalf("right after machine %s is ready: got %v, want its power changed", v.ID, err)
		}
	}
}
