package qemu_test

import (
	"context"
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// testPreload checks that machines are prepared up to their guest's continuation, on a host that has a template, and
// returns one that waits.
func testPreload(t *testing.T, h *memoryHost) (waits vm.Machine) {
	t.Helper()
	prepare := func(t *testing.T) vm.Machine {
		t.Helper()
		m := h.clone(t)
		if err := h.Preload(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	started := func(t *testing.T, m vm.Machine) {
		t.Helper()
		h.with(t).start(m)
		st := h.up(t, m)
		if st.Start != vm.StartMemory || booted(st, "") || processes(t, m) != 1 {
			t.Errorf("got %+v, want a start from memory", st)
		}
		until(t, harness.Timeout, "its page", func() bool { _, ok := served("http://" + st.IP + "/"); return ok })
	}
	t.Run("a prepared machine waits, and its start lets it run", func(t *testing.T) {
		m := prepare(t)
		pid := pidOf(t, m)
		if st := h.with(t).inspect(m); st.Power != vm.PoweringOn || st.IP != "" || st.Up || st.Start == vm.StartMemory {
			t.Errorf("got %+v, want a machine without a guest", st)
		}
		if err := h.Preload(t.Context(), m); err != nil || pidOf(t, m) != pid {
			t.Errorf("prepared once more: got %v and process %d, want process %d", err, pidOf(t, m), pid)
		}
		h.reopen(t)
		m.Forward = []int{80}
		started(t, m)
		if pidOf(t, m) != pid {
			t.Errorf("got process %d, want %d, which was prepared", pidOf(t, m), pid)
		}
		if err := h.Preload(t.Context(), m); err != nil || pidOf(t, m) != pid || h.inspect(m).Power != vm.PoweredOn {
			t.Errorf("once it runs: got %v and process %d, want no change", err, pidOf(t, m))
		}
		restart(t, m)
		until(t, harness.Timeout, "an ordinary machine", func() bool {
			st, err := h.Inspect(t.Context(), m)
			return err == nil && st.Power == vm.PoweredOn && st.Start != vm.StartMemory
		})
	})
	t.Run("one whose QEMU died is prepared again, or started from the template", func(t *testing.T) {
		m := prepare(t)
		signal(t, pidOf(t, m), syscall.SIGKILL)
		until(t, harness.Timeout, "the end of QEMU", func() bool { return processes(t, m) == 0 })
		if err := h.Preload(t.Context(), m); err != nil || processes(t, m) != 1 {
			t.Errorf("got %v and %d processes, want it prepared again", err, processes(t, m))
		}
		signal(t, pidOf(t, m), syscall.SIGKILL)
		started(t, m)
	})
	t.Run("one whose guest gives no sign of life boots", func(t *testing.T) { h.staysSilent(t, prepare(t)) })
	t.Run("an interrupted preparation begins again", func(t *testing.T) {
		m := h.clone(t)
		interrupt(t, func(ctx context.Context) error { return h.Preload(ctx, m) })
		if err := h.Preload(t.Context(), m); err != nil || processes(t, m) != 1 {
			t.Errorf("got %v and %d processes, want one that is prepared", err, processes(t, m))
		}
		if err := h.Destroy(t.Context(), m); err != nil || processes(t, m) != 0 {
			t.Errorf("destroyed: got %v and %d processes, want none", err, processes(t, m))
		}
	})
	t.Run("one that would boot is not prepared", func(t *testing.T) {
		m := h.with(t).machine()
		m.Memory, m.Start, m.LaunchGUI = 256, vm.StartMemory, true
		h.with(t).clone(m, h.gold)
		wantCode(t, h.Preload(t.Context(), m), vm.CodeHypervisor, "boots instead", "launch_gui asks for a window")
		if n := processes(t, m); n != 0 {
			t.Errorf("it has %d processes, want none", n)
		}
	})
	return prepare(t)
}
