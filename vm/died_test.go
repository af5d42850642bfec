package vm_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

const killed = "QEMU was killed by signal 11 (segmentation fault)"

// dies lets the first n of the machine's processes die: while they start, or
// before their guest gives a sign of life.
func (h *harness) dies(step vmtest.Step, n int32) {
	var deaths atomic.Int32
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		switch {
		case s != step || deaths.Load() == n:
		case s == vmtest.Start:
			deaths.Add(1)
			return &vm.Error{Code: vm.CodeHypervisor, Message: "the machine did not start: " + killed, Err: vm.ErrDied}
		case s == vmtest.Inspect && h.driver.Kill(m, killed) == nil: // it fails before the clone is made
			deaths.Add(1)
		}
		return nil
	}
}

// A machine that dies before its guest gave a sign of life is started once more,
// and then is ready like any other. A second death fails it and says why.
func TestDeathWhileCreating(t *testing.T) {
	for _, step := range []vmtest.Step{vmtest.Start, vmtest.Inspect} {
		for deaths, want := range map[int32]vm.Phase{1: vm.Ready, 2: vm.Failed} {
			t.Run(fmt.Sprintf("%s %d", step, deaths), func(t *testing.T) {
				h := newHarness(t)
				var restarts atomic.Int32
				h.options = func(o *vm.Options) { o.Hooks.Restarted = func() { restarts.Add(1) } }
				h.dies(step, deaths)
				v := h.open().create(h.request())
				posted := h.callback()
				v = h.wait(v.ID)
				for _, got := range []vm.VM{v, posted} {
					if got.Phase != want || got.StoppedBecause != "" {
						t.Errorf("got phase %s, error %v, stopped because %q; want %s", got.Phase, got.Error, got.StoppedBecause, want)
					}
					if want == vm.Failed && (got.Error == nil || got.Error.Code != vm.CodeHypervisor || !strings.Contains(got.Error.Message, killed)) {
						t.Errorf("got error %v, want %s and %q", got.Error, vm.CodeHypervisor, killed)
					}
				}
				if restarts.Load() != 1 || h.received() != 1 {
					t.Errorf("got %d restarts and %d callbacks, want one of each", restarts.Load(), h.received())
				}
			})
		}
	}
}

// A guest that shuts down before it gave a sign of life is not started again.
func TestGuestThatStopsIsNotRestarted(t *testing.T) {
	h := newHarness(t)
	restarts := 0
	h.options = func(o *vm.Options) { o.Hooks.Restarted = func() { restarts++ } }
	h.stopGuest()
	v := h.open().create(h.request())
	v = h.wait(v.ID)
	if v.Error == nil || v.Error.Code != vm.CodeGuestStopped || restarts != 0 {
		t.Errorf("got error %v and %d restarts, want %s and none", v.Error, restarts, vm.CodeGuestStopped)
	}
}

// The document, the list and the event of a machine that is off say why, also
// to those who ask a later daemon, until it is started.
func TestStoppedBecause(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(*harness, vm.Machine) error
		want string
	}{
		"died":                {func(h *harness, m vm.Machine) error { return h.driver.Kill(m, killed) }, killed},
		"the guest shut down": {func(h *harness, m vm.Machine) error { return h.driver.SetPower(m, vm.PoweredOff) }, "the guest shut down"},
		"switched off": {func(h *harness, m vm.Machine) error {
			_, err := h.vms.Power(h.t.Context(), m.ID, vm.ActionOff)
			return err
		}, "it was switched off"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t).open()
			v := h.create(h.request())
			h.delivered(v.ID)
			l := h.listen("")
			must(t, c.stop(h, vm.Machine{ID: v.ID, Dir: filepath.Join(h.dir, "vms", v.ID)}))
			heard := until(t, l, "the end", func(e vm.Event) bool { return e.Status == vm.PoweredOff })
			if e := heard[len(heard)-1]; e.StoppedBecause != c.want {
				t.Errorf("got event %+v, want %q", e, c.want)
			}
			l.Close()
			for range 2 {
				got, err := h.vms.Get(t.Context(), v.ID)
				if err != nil || got.StoppedBecause != c.want || got.Phase != vm.Ready || got.Status != vm.PoweredOff {
					t.Errorf("got %+v, %v, want %q", got, err, c.want)
				}
				list, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
				if err != nil || len(list) != 1 || list[0].StoppedBecause != c.want {
					t.Errorf("got list %+v, %v, want %q", list, err, c.want)
				}
				h.close()
				h.open()
			}
			got, err := h.vms.Power(t.Context(), v.ID, vm.ActionOn)
			if err != nil || got.StoppedBecause != "" {
				t.Errorf("got %+v, %v once it is started, want no reason", got, err)
			}
		})
	}
}

// A machine whose disk cannot be read is never ready, whether its guest answers or not.
func TestFaultWhileCreating(t *testing.T) {
	for _, silent := range []bool{false, true} {
		h := newHarness(t)
		h.driver.Silent = silent
		h.driver.Fault = &vm.Error{Code: vm.CodeImageInvalid, Message: "the guest could not read its disk scsi0:0"}
		v := h.wait(h.open().create(h.request()).ID)
		if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != vm.CodeImageInvalid || !strings.Contains(v.Error.Message, "scsi0:0") {
			t.Errorf("silent %t: got phase %s and error %v, want failed with %s and the disk", silent, v.Phase, v.Error, vm.CodeImageInvalid)
		}
	}
}
