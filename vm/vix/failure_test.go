//go:build vix && cgo && !windows

package vix_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vix"
)

// want is the code that a client sees for an error of VIX.
func want(code int, inspecting bool) vm.Code {
	switch {
	case code == 15 || code == 4002:
		return vm.CodeOpen
	case code == 8:
		return vm.CodeDiskFull
	case code == 32 || code/1000 == 22:
		return vm.CodeHypervisorUnavailable
	case inspecting:
		return vm.CodeOpen
	}
	return vm.CodeHypervisor
}

// Every function that the driver calls fails with every code, all through a
// machine's life. Errors name the code, and the machine can be destroyed after.
func TestErrors(t *testing.T) {
	b := newBench(t)
	b.set("unlock.ms", 0)
	d := b.open()
	b.options.Deadlines.Locks = 200 * time.Millisecond
	hasty := b.open()
	must(t, d.Destroy(t.Context(), b.running(d))) // the base is made
	for _, function := range []string{
		"VixHost_OpenVM", "VixVM_GetNamedSnapshot", "VixVM_Clone", "VixVM_PowerOn",
		"Vix_GetProperties", "VixVM_ReadVariable", "VixVM_WaitForToolsInGuest", "VixVM_PowerOff", "VixVM_Delete",
	} {
		for _, code := range []int{
			3, 8, 10, 11, 13, 15, 32, 1000, 3000, 3006, 3007, 3008, 3009, 3014, 3016, 3028, 3041, 3043, 4000, 4002,
			13004, 13010, 17004, 17005, 22001, 22002, 22003, 22004, 22005,
		} {
			first := d
			if code == 3006 || code == 4000 {
				first = hasty // for a lock that stays
			}
			t.Run(fmt.Sprintf("%s/%d", function, code), func(t *testing.T) { b.fail(t, first, d, function, code) })
		}
	}
}

// fail leads a machine through its life with a function that fails. Its end is
// up to the driver last.
func (b *bench) fail(t *testing.T, d, last *vix.Driver, function string, code int) {
	m := b.machine()
	failed := false
	step := func(name string, err error) {
		t.Helper()
		if err == nil {
			return
		}
		failed = true
		var e *vm.Error
		if !errors.As(err, &e) {
			t.Fatalf("%s: got %v, want an *vm.Error", name, err)
		}
		// VMware said that the machine is off or unknown, and then that it runs.
		if name == "Destroy" && (code == 3006 || code == 4000) && strings.Contains(e.Message, "(VIX error 3007)") {
			return
		}
		if w := want(code, name == "Inspect"); e.Code != w {
			t.Errorf("%s: got code %s, want %s: %v", name, e.Code, w, err)
		}
		if !strings.Contains(e.Message, fmt.Sprintf("(VIX error %d)", code)) {
			t.Errorf("%s: got %q, want VIX's number %d in it", name, e.Message, code)
		}
	}
	each := func() {
		_, err := d.Inspect(t.Context(), m)
		step("Inspect", err)
	}
	b.set("error."+function, code)
	step("Clone", d.Clone(t.Context(), m, b.gold))
	if failed {
		b.clear()
		must(t, d.Clone(t.Context(), m, b.gold))
		b.set("error."+function, code)
	}
	each()
	step("Start", d.Start(t.Context(), m))
	b.clear()
	must(t, d.Start(t.Context(), m))
	b.set("error."+function, code)
	each()
	step("Destroy", d.Destroy(t.Context(), m))
	b.clear()
	swallowed := map[string]bool{"VixVM_ReadVariable": true, "VixVM_WaitForToolsInGuest": true, "VixVM_Delete": true}
	ignored := function == "VixVM_PowerOn" && code == 3007 || function == "VixVM_PowerOff" && code == 3006
	if !failed && !swallowed[function] && !ignored && !(function == "VixVM_PowerOff" && code == 4000) {
		t.Error("no step failed")
	}
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power == vm.PoweredOn && function != "VixVM_PowerOff" && function != "VixHost_OpenVM" && function != "Vix_GetProperties" && function != "VixVM_Delete" {
		t.Errorf("Inspect at the end: got %+v, %v", st, err)
	}
	must(t, last.Destroy(t.Context(), m))
	b.gone(d, m)
}

// Errors that only the first clone of an image can meet.
func TestSnapshotErrors(t *testing.T) {
	for _, code := range []int{8, 11, 13, 15, 32, 13019, 13021} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			b := newBench(t)
			d := b.open()
			m := b.machine()
			b.set("error.VixVM_CreateSnapshot", code)
			err := d.Clone(t.Context(), m, b.gold)
			var e *vm.Error
			if !errors.As(err, &e) || e.Code != want(code, false) {
				t.Errorf("got %v, want code %s", err, want(code, false))
			}
			b.clear()
			must(t, d.Clone(t.Context(), m, b.gold))
			must(t, d.Destroy(t.Context(), m))
		})
	}
}

// Where there is no display the machine starts without.
func TestHeadless(t *testing.T) {
	b := newBench(t)
	b.set("error.VixVM_PowerOn.gui", 3043)
	b.set("dialog", "")
	d := b.open()
	m := b.machine()
	m.LaunchGUI = true
	must(t, d.Clone(t.Context(), m, b.gold))
	must(t, d.Start(t.Context(), m))
	if !strings.Contains(b.log.String(), "no display") {
		t.Error("the log does not say that the machine has no window")
	}
	must(t, d.Destroy(t.Context(), m))
}

// A call that never ends costs its caller no more than the deadline, and other
// machines nothing. When it ends after all, the machine is of use again.
func TestHangs(t *testing.T) {
	b := newBench(t)
	patient := b.open()
	b.options.Deadlines = vix.Deadlines{
		Connect: 5 * time.Second, Look: 300 * time.Millisecond, Clone: 300 * time.Millisecond, Start: 300 * time.Millisecond,
		Stop: 300 * time.Millisecond, Locks: 300 * time.Millisecond, Tools: time.Second,
	}
	d := b.open()
	other := b.running(d)
	for _, function := range []string{
		"VixHost_OpenVM", "VixVM_Clone", "VixVM_Clone.inside", "VixVM_PowerOn", "Vix_GetProperties", "VixVM_ReadVariable",
		"VixVM_PowerOff", "VixVM_Delete",
	} {
		t.Run(function, func(t *testing.T) {
			if !b.hang(t, d, function, other) {
				t.Error("nothing failed")
			}
		})
	}
	t.Run("VixVM_WaitForToolsInGuest", func(t *testing.T) {
		if b.hang(t, patient, "VixVM_WaitForToolsInGuest", other) {
			t.Error("a wait for tools that hangs got in the way")
		}
	})
	must(t, d.Destroy(t.Context(), other))
}

// hang leads a machine through its life with a function that hangs all along,
// so that what returns has kept its deadline. It reports whether a step failed.
func (b *bench) hang(t *testing.T, d *vix.Driver, function string, other vm.Machine) (failed bool) {
	m := b.machine()
	part := m.ID
	if strings.HasPrefix(function, "VixVM_Clone") {
		part = "" // the base's
	}
	b.set("hang."+function, part)
	step := func(name string, err error) {
		t.Helper()
		var e *vm.Error
		if err == nil {
			return
		}
		failed = true
		if !errors.As(err, &e) || !strings.Contains(e.Message, "VMware did not") || name == "Inspect" && e.Code != vm.CodeOpen {
			t.Errorf("%s: got %v, want an *vm.Error that says what VMware did not do", name, err)
		}
		until(t, "another machine readable", func() bool {
			st, err := d.Inspect(t.Context(), other)
			return err == nil && st.Power == vm.PoweredOn
		})
	}
	inspect := func() {
		t.Helper()
		_, err := d.Inspect(t.Context(), m)
		step("Inspect", err)
	}
	step("Clone", d.Clone(t.Context(), m, b.gold))
	inspect()
	if !strings.HasPrefix(function, "VixVM_Clone") {
		step("Start", d.Start(t.Context(), m))
		inspect()
	}
	step("Destroy", d.Destroy(t.Context(), m))
	b.clear()
	until(t, "all calls ended", func() bool { return b.stats()["calls"] == 0 })
	until(t, "destroyed", func() bool { return d.Destroy(t.Context(), m) == nil })
	until(t, "gone", func() bool {
		st, err := d.Inspect(t.Context(), m)
		return err == nil && st.Power == ""
	})
	return failed
}

// A driver whose calls hang says so, and closes all the same.
func TestCloseWithCallsUnderWay(t *testing.T) {
	b := newBench(t)
	b.options.Deadlines.Look, b.options.Deadlines.Tools = 100*time.Millisecond, time.Second
	d, err := vix.Open(b.options)
	must(t, err)
	m := b.running(d)
	before := b.stats()
	b.set("hang.Vix_GetProperties", m.ID)
	if _, err := d.Inspect(t.Context(), m); err == nil {
		t.Error("Inspect: got no error")
	}
	must(t, d.Close())
	b.clear()
	until(t, "all calls ended", func() bool { return b.stats()["calls"] == 0 })
	if n := b.stats()["dead_call"] - before["dead_call"]; n != 0 {
		t.Errorf("got %d calls with handles that are gone, want none", n)
	}
	other := b.open()
	must(t, other.Destroy(t.Context(), m))
}

// Calls that hang are bounded. Once all places are taken, the driver says so
// and takes no more machines, until one ends.
func TestHangingCallsAreBounded(t *testing.T) {
	b := newBench(t)
	b.options.Deadlines.Look = time.Minute
	d := b.open()
	var machines []vm.Machine
	for range vix.CallsAtOnce {
		m := b.machine()
		must(t, d.Clone(t.Context(), m, b.gold))
		machines = append(machines, m)
	}
	b.set("hang.Vix_GetProperties", "")
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, m := range machines {
		wg.Go(func() {
			if _, err := d.Inspect(ctx, m); !errors.Is(err, context.Canceled) {
				t.Errorf("Inspect of a machine whose calls hang: got %v, want it cancelled", err)
			}
		})
	}
	until(t, "all places taken", func() bool { return b.stats()["calls"] == vix.CallsAtOnce })
	cancel()
	wg.Wait()
	if err := d.Ready(t.Context()); !isCode(err, vm.CodeHypervisorUnavailable) || !strings.Contains(err.Error(), "dialog") {
		t.Errorf("Ready: got %v, want %s", err, vm.CodeHypervisorUnavailable)
	}
	b.clear()
	until(t, "ready again", func() bool { return d.Ready(t.Context()) == nil })
	for _, m := range machines {
		must(t, d.Destroy(t.Context(), m))
	}
}

// A machine whose call is past its deadline is used by no other until that call
// has ended: what the call works with would be taken from it.
func TestCallsKeepTheirMachine(t *testing.T) {
	b := newBench(t)
	b.options.Deadlines.Look = time.Second
	d := b.open()
	m := b.running(d)
	b.set("hang.VixVM_ReadVariable", m.ID)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := d.Inspect(ctx, m); err == nil {
			t.Error("Inspect whose call hangs: got no error")
		}
	})
	until(t, "the call hangs", func() bool { return b.stats()["calls"] == 1 })
	cancel()
	wg.Wait()
	if _, err := d.Inspect(t.Context(), m); !isCode(err, vm.CodeOpen) || !strings.Contains(err.Error(), "earlier call") {
		t.Errorf("Inspect beside a call that hangs: got %v, want %s and word of the earlier call", err, vm.CodeOpen)
	}
	b.clear()
	must(t, d.Destroy(t.Context(), m))
}
