//go:build vix && cgo && !windows

package vix_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmware"
)

// want returns the code that a client sees for an error of VIX.
func want(code int, inspecting bool) vm.Code {
	switch {
	case code == 15 || code == 4002:
		return vm.CodeOpen
	case code == 8:
		return vm.CodeDiskFull
	case code == 26 || code == 32 || code == 34 || code == 36 || code/1000 == 22:
		return vm.CodeHypervisorUnavailable
	case inspecting:
		return vm.CodeOpen
	}
	return vm.CodeHypervisor
}

// Every function that the driver calls fails with every code, during a machine's whole life. Errors contain the code,
// and the machine can be destroyed afterwards.
func TestErrors(t *testing.T) {
	h := newHarness(t)
	h.set("unlock.ms", 0)
	d := h.open()
	h.options.Deadlines.Unlock = 200 * time.Millisecond
	impatient := h.open()
	must(t, d.Destroy(t.Context(), h.running(d))) // creates the base
	for _, function := range []string{
		"VixHost_OpenVM", "VixVM_GetNamedSnapshot", "VixVM_Clone", "VixVM_PowerOn",
		"Vix_GetProperties", "VixVM_ReadVariable", "VixVM_WaitForToolsInGuest", "VixVM_PowerOff", "VixVM_Delete",
	} {
		for _, code := range []int{
			3, 8, 10, 11, 13, 15, 26, 32, 34, 36, 1000, 3000, 3006, 3007, 3008, 3009, 3014, 3016, 3028, 3041, 3043, 4000, 4002,
			13004, 13010, 17004, 17005, 22001, 22002, 22003, 22004, 22005,
		} {
			first := d
			if code == 3006 || code == 4000 {
				first = impatient // because the lock stays
			}
			t.Run(fmt.Sprintf("%s/%d", function, code), func(t *testing.T) { h.fail(t, first, d, function, code) })
		}
	}
}

// fail runs a machine's life while a function fails. The driver last destroys the machine.
func (h *harness) fail(t *testing.T, d, last *vix.Driver, function string, code int) {
	m := h.machine()
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
		// VMware answers that the machine is off or unknown, and then that it runs.
		if name == "Destroy" && (code == 3006 || code == 4000) && strings.Contains(e.Message, "(VIX error 3007)") {
			return
		}
		if w := want(code, name == "Inspect"); e.Code != w {
			t.Errorf("%s: got code %s, want %s: %v", name, e.Code, w, err)
		}
		if !strings.Contains(e.Message, fmt.Sprintf("(VIX error %d)", code)) {
			t.Errorf("%s: got %q, want VIX's code %d in it", name, e.Message, code)
		}
	}
	each := func() {
		_, err := d.Inspect(t.Context(), m)
		step("Inspect", err)
	}
	h.set("error."+function, code)
	step("Clone", d.Clone(t.Context(), m, h.gold))
	if failed {
		h.clear()
		must(t, d.Clone(t.Context(), m, h.gold))
		h.set("error."+function, code)
	}
	each()
	step("Start", d.Start(t.Context(), m))
	h.clear()
	must(t, d.Start(t.Context(), m))
	h.set("error."+function, code)
	each()
	step("Destroy", d.Destroy(t.Context(), m))
	h.clear()
	swallowed := map[string]bool{"VixVM_ReadVariable": true, "VixVM_WaitForToolsInGuest": true, "VixVM_Delete": true}
	ignored := function == "VixVM_PowerOn" && code == 3007 || function == "VixVM_PowerOff" && code == 3006
	if !failed && !swallowed[function] && !ignored && !(function == "VixVM_PowerOff" && code == 4000) {
		t.Error("no step failed")
	}
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power == vm.PoweredOn && function != "VixVM_PowerOff" && function != "VixHost_OpenVM" && function != "Vix_GetProperties" && function != "VixVM_Delete" {
		t.Errorf("Inspect at the end: got %+v, %v", st, err)
	}
	must(t, last.Destroy(t.Context(), m))
	h.checkGone(d, m)
}

// Errors that only the first clone of an image can cause.
func TestSnapshotErrors(t *testing.T) {
	for _, code := range []int{8, 11, 13, 15, 32, 13019, 13021} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			h := newHarness(t)
			d := h.open()
			m := h.machine()
			h.set("error.VixVM_CreateSnapshot", code)
			err := d.Clone(t.Context(), m, h.gold)
			var e *vm.Error
			if !errors.As(err, &e) || e.Code != want(code, false) {
				t.Errorf("got %v, want code %s", err, want(code, false))
			}
			h.clear()
			must(t, d.Clone(t.Context(), m, h.gold))
			must(t, d.Destroy(t.Context(), m))
		})
	}
}

// If VMware does not find a file at a path with unusual characters, the error names the path and -data.
func TestPathHint(t *testing.T) {
	for folder, hinted := range map[string]bool{"vms": false, "my vms": true, "Böden": true} {
		h := newHarness(t)
		d := h.open()
		m := h.machine()
		m.Dir = filepath.Join(h.dir, folder, m.ID)
		must(t, d.Clone(t.Context(), m, h.gold))
		h.set("error.VixVM_PowerOn", 4)
		err := d.Start(t.Context(), m)
		if err == nil || strings.Contains(err.Error(), "-data") != hinted || strings.Contains(err.Error(), m.Dir) != hinted {
			t.Errorf("%q: got %v, want a hint: %v", folder, err, hinted)
		}
		h.clear()
		must(t, d.Destroy(t.Context(), m))
	}
}

// Without a display, the machine starts without a window.
func TestNoDisplay(t *testing.T) {
	h := newHarness(t)
	h.set("error.VixVM_PowerOn.gui", 3043)
	h.set("dialog", "")
	d := h.open()
	m := h.machine()
	m.LaunchGUI = true
	must(t, d.Clone(t.Context(), m, h.gold))
	must(t, d.Start(t.Context(), m))
	if !strings.Contains(h.log.String(), "no display") {
		t.Error("the log does not say that the machine has no window")
	}
	must(t, d.Destroy(t.Context(), m))
}

// A call that never returns delays its caller up to the deadline, and no other machine. When it returns after all, the
// machine can be used again.
func TestHangingCalls(t *testing.T) {
	h := newHarness(t)
	patient := h.open()
	h.options.Deadlines = vmware.Deadlines{
		Connect: 5 * time.Second, Read: 300 * time.Millisecond, Clone: 300 * time.Millisecond, Start: 300 * time.Millisecond,
		Stop: 300 * time.Millisecond, Unlock: 300 * time.Millisecond, Tools: time.Second,
	}
	d := h.open()
	other := h.running(d)
	for _, function := range []string{
		"VixHost_OpenVM", "VixVM_Clone", "VixVM_Clone.inside", "VixVM_PowerOn", "Vix_GetProperties",
		"VixVM_PowerOff", "VixVM_Delete",
	} {
		t.Run(function, func(t *testing.T) {
			if !h.hang(t, d, function, other) {
				t.Error("nothing failed")
			}
		})
	}
	for _, function := range []string{"VixVM_WaitForToolsInGuest", "VixVM_ReadVariable"} {
		t.Run(function, func(t *testing.T) {
			if h.hang(t, patient, function, other) {
				t.Error("a call in the background that hangs made a step fail")
			}
		})
	}
	must(t, d.Destroy(t.Context(), other))
}

// hang runs a machine's life while a function hangs, so every step that returns has met its deadline. It reports
// whether a step failed.
func (h *harness) hang(t *testing.T, d *vix.Driver, function string, other vm.Machine) (failed bool) {
	m := h.machine()
	part := m.ID
	if strings.HasPrefix(function, "VixVM_Clone") {
		part = "" // the base's
	}
	h.set("hang."+function, part)
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
		waitUntil(t, "another machine can be read", func() bool {
			st, err := d.Inspect(t.Context(), other)
			return err == nil && st.Power == vm.PoweredOn
		})
	}
	inspect := func() {
		t.Helper()
		_, err := d.Inspect(t.Context(), m)
		step("Inspect", err)
	}
	step("Clone", d.Clone(t.Context(), m, h.gold))
	inspect()
	if !strings.HasPrefix(function, "VixVM_Clone") {
		step("Start", d.Start(t.Context(), m))
		inspect()
	}
	step("Destroy", d.Destroy(t.Context(), m))
	h.clear()
	waitUntil(t, "all calls ended", func() bool { return h.stats()["calls"] == 0 })
	waitUntil(t, "destroyed", func() bool { return d.Destroy(t.Context(), m) == nil })
	waitUntil(t, "gone", func() bool {
		st, err := d.Inspect(t.Context(), m)
		return err == nil && st.Power == ""
	})
	return failed
}

// A driver with hanging calls can be closed.
func TestCloseWithHangingCalls(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines.Read, h.options.Deadlines.Tools = 100*time.Millisecond, time.Second
	d, err := vix.Open(h.options)
	must(t, err)
	m := h.running(d)
	before := h.stats()
	h.set("hang.Vix_GetProperties", m.ID)
	if _, err := d.Inspect(t.Context(), m); err == nil {
		t.Error("Inspect: got no error")
	}
	must(t, d.Close())
	h.clear()
	waitUntil(t, "all calls ended", func() bool { return h.stats()["calls"] == 0 })
	if n := h.stats()["dead_call"] - before["dead_call"]; n != 0 {
		t.Errorf("got %d calls with released handles, want none", n)
	}
	other := h.open()
	must(t, other.Destroy(t.Context(), m))
}

// If disconnecting hangs, Close returns, and the driver can be asked for its state meanwhile: no lock is held.
func TestCloseWithHangingDisconnect(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines.Read, h.options.Deadlines.Tools = 4*time.Second, time.Second
	d, err := vix.Open(h.options)
	must(t, err)
	h.set("hang.VixHost_Disconnect", "")
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	waitUntil(t, "disconnecting hangs", func() bool { return h.stats()["calls"] == 1 })
	d.Describe(t.Context())
	if err := d.Ready(t.Context()); !isCode(err, vm.CodeHypervisorUnavailable) {
		t.Errorf("Ready while disconnecting: got %v, want %s", err, vm.CodeHypervisorUnavailable)
	}
	select {
	case err := <-closed:
		t.Fatalf("Describe and Ready waited for Close, which returned %v", err)
	default:
	}
	must(t, <-closed)
	h.clear()
	waitUntil(t, "all calls ended", func() bool { return h.stats()["calls"] == 0 })
}

// The number of hanging calls is bounded. If no further call can start, the driver is not ready until a call ends.
func TestMaxHangingCalls(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines.Read = time.Minute
	d := h.open()
	var machines []vm.Machine
	for range vix.MaxCalls {
		m := h.machine()
		must(t, d.Clone(t.Context(), m, h.gold))
		machines = append(machines, m)
	}
	h.set("hang.Vix_GetProperties", "")
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
	waitUntil(t, "the largest number of calls hang", func() bool { return h.stats()["calls"] == vix.MaxCalls })
	cancel()
	wg.Wait()
	if err := d.Ready(t.Context()); !isCode(err, vm.CodeHypervisorUnavailable) || !strings.Contains(err.Error(), "dialog") {
		t.Errorf("Ready: got %v, want %s", err, vm.CodeHypervisorUnavailable)
	}
	h.clear()
	waitUntil(t, "ready again", func() bool { return d.Ready(t.Context()) == nil })
	for _, m := range machines {
		must(t, d.Destroy(t.Context(), m))
	}
}

// A machine whose call exceeds its deadline cannot be used until the call ends, because the call still uses its handle.
func TestHangingCallKeepsMachine(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines.Read = time.Second
	d := h.open()
	m := h.running(d)
	h.set("hang.Vix_GetProperties", m.ID)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := d.Inspect(ctx, m); err == nil {
			t.Error("Inspect whose call hangs: got no error")
		}
	})
	waitUntil(t, "the call hangs", func() bool { return h.stats()["calls"] == 1 })
	cancel()
	wg.Wait()
	if _, err := d.Inspect(t.Context(), m); !isCode(err, vm.CodeOpen) || !strings.Contains(err.Error(), "earlier call") {
		t.Errorf("Inspect beside a call that hangs: got %v, want %s that mentions the earlier call", err, vm.CodeOpen)
	}
	h.clear()
	must(t, d.Destroy(t.Context(), m))
}
