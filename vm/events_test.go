package vm_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// listen returns a listener that the end of the test closes.
func (h *harness) listen(after string) *vm.Listener {
	h.t.Helper()
	l, err := h.vms.Listen(after, everyone)
	must(h.t, err)
	h.t.Cleanup(l.Close)
	return l
}

// until reads events up to the wanted one, and returns all of them.
func until(t *testing.T, l *vm.Listener, what string, wanted func(vm.Event) bool) (all []vm.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	for {
		e, err := l.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for %s: %v; heard %+v", what, err, all)
		}
		all = append(all, e)
		if wanted(e) {
			return all
		}
	}
}

func phase(p vm.Phase) func(vm.Event) bool {
	return func(e vm.Event) bool { return e.Phase == p }
}

func gone(e vm.Event) bool { return e.Gone }

// A listener gets each phase of a machine once and in order, with its power state,
// and its end once.
func TestEventsOfALife(t *testing.T) {
	h := newHarness(t).open()
	l := h.listen("")
	id := h.create(h.request()).ID
	heard := until(t, l, "ready", phase(vm.Ready))
	must(t, h.vms.Destroy(t.Context(), id))
	heard = append(heard, until(t, l, "gone", gone)...)
	var phases []vm.Phase
	for i, e := range heard {
		if e.ID != id || e.At.IsZero() || (i > 0 && e.Number != heard[i-1].Number+1) {
			t.Errorf("got event %+v after %+v", e, heard[max(0, i-1)])
		}
		if e.Gone || e.Progress != nil || slices.Contains(phases, e.Phase) {
			continue
		}
		phases = append(phases, e.Phase)
	}
	want := []vm.Phase{vm.Accepted, vm.Downloading, vm.Cloning, vm.Starting, vm.Waiting, vm.Ready, vm.Destroying}
	if phases = slices.DeleteFunc(phases, func(p vm.Phase) bool { return p == vm.Unpacking }); !slices.Equal(phases, want) {
		t.Errorf("got phases %v, want %v", phases, want)
	}
	ready := slices.IndexFunc(heard, phase(vm.Ready))
	if heard[ready].Status != vm.PoweredOn {
		t.Errorf("got %+v, want powered-on", heard[ready])
	}
}

// A failed creation has an event, without a power state.
func TestEventsOfAFailure(t *testing.T) {
	h := newHarness(t)
	h.driver.Hook = func(_ context.Context, s vmtest.Step, _ vm.Machine) error {
		if s == vmtest.Start {
			return errors.New("no start")
		}
		return nil
	}
	h.open()
	l := h.listen("")
	h.create(h.request())
	heard := until(t, l, "failed", phase(vm.Failed))
	if e := heard[len(heard)-1]; e.Status != "" {
		t.Errorf("got %+v, want no power state", e)
	}
}

// A power state that a guest or an operator changes without the daemon has an
// event, even if there was no listener when it changed.
func TestEventsOfAPowerState(t *testing.T) {
	h := newHarness(t).open()
	v := h.create(h.request())
	h.wait(v.ID)
	m := vm.Machine{ID: v.ID, Dir: h.dir + "/vms/" + v.ID}
	l := h.listen("")
	must(t, h.driver.SetPower(m, vm.PoweredOff))
	until(t, l, "powered-off", func(e vm.Event) bool { return e.ID == v.ID && e.Status == vm.PoweredOff && e.Phase == vm.Ready })
	id := l.EventID()
	l.Close()
	must(t, h.driver.SetPower(m, vm.Suspended))
	l = h.listen(id)
	if !l.Known {
		t.Error("all events are kept, but the listener is not Known")
	}
	heard := until(t, l, "suspended", func(e vm.Event) bool { return e.Status == vm.Suspended })
	if len(heard) != 1 {
		t.Errorf("got %+v, want the one event", heard)
	}
}

// Without a listener the hypervisor is not asked.
func TestNoListener(t *testing.T) {
	h := newHarness(t)
	var inspections atomic.Int32
	h.driver.Hook = func(context.Context, vmtest.Step, vm.Machine) error {
		inspections.Add(1)
		return nil
	}
	h.open()
	v := h.create(h.request())
	h.wait(v.ID)
	h.listen("").Close()
	before := inspections.Load()
	time.Sleep(1500 * time.Millisecond)          // longer than between two inspections
	if n := inspections.Load() - before; n > 1 { // one may have been about to begin
		t.Errorf("got %d inspections at the machine, want none", n)
	}
}

// A listener that names an event gets all events after it, or learns that they are
// not kept any more.
func TestEventsAfter(t *testing.T) {
	h := newHarness(t).open()
	l := h.listen("")
	start := l.EventID()
	first := h.create(h.request()).ID
	until(t, l, "ready", phase(vm.Ready))
	middle := l.EventID()
	must(t, h.vms.Destroy(t.Context(), first))
	until(t, l, "gone", gone)
	for after, want := range map[string]struct {
		known bool
		first vm.Phase
	}{
		start:  {true, vm.Accepted},
		middle: {true, vm.Destroying},
	} {
		l := h.listen(after)
		if l.Known != want.known {
			t.Fatalf("after %s: got known %v", after, l.Known)
		}
		e, err := l.Next(t.Context())
		must(t, err)
		if e.Phase != want.first {
			t.Errorf("after %s: got %+v, want phase %s", after, e, want.first)
		}
	}
	current := l.EventID()
	for _, after := range []string{"", "x", "-1", "0-0", current + "0", "0000000000000000-1", current + "-1", start[:16] + "--1"} {
		l := h.listen(after)
		if l.Known || l.EventID() != current {
			t.Errorf("after %q: got known %v and ID %s, want false and %s", after, l.Known, l.EventID(), current)
		}
	}
}

// The number of listeners is bounded, one that is closed makes room for another,
// and all end with the daemon.
func TestListenersAreBounded(t *testing.T) {
	h := newHarness(t).open()
	var all []*vm.Listener
	for range 64 {
		all = append(all, h.listen(""))
	}
	_, err := h.vms.Listen("", everyone)
	wantCode(t, "the 65th listener", err, vm.CodeBusy)
	all[0].Close()
	all[0].Close()
	last := h.listen("")
	h.vms.Close()
	if _, err := last.Next(t.Context()); err == nil || t.Context().Err() != nil {
		t.Errorf("once the daemon stops: got %v, want an error", err)
	}
	for _, l := range append(all, last) {
		l.Close()
	}
	_, err = h.vms.Listen("", everyone)
	wantCode(t, "listening while the daemon stops", err, vm.CodeShuttingDown)
}
