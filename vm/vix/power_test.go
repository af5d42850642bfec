//go:build vix && cgo && !windows

package vix_test

import (
	"bytes"
	"errors"
	"image/png"
	"os"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vix"
)

func hasCode(err error, code vm.Code) bool {
	var e *vm.Error
	return errors.As(err, &e) && e.Code == code
}

// withTools returns a running machine whose tools run.
func (h *harness) withTools(d *vix.Driver) vm.Machine {
	h.t.Helper()
	m := h.running(d)
	waitUntil(h.t, "the tools run", func() bool {
		st, err := d.Inspect(h.t.Context(), m)
		return err == nil && st.Tools == vm.ToolsRunning
	})
	return m
}

// ActionShutdown asks the guest, which leaves a file. Without tools it is refused. If the guest does not react, the
// call returns, and the machine can be read and powered off meanwhile.
func TestShutdown(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.withTools(d)
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))
	waitUntil(t, "off", func() bool {
		st, err := d.Inspect(t.Context(), m)
		return err == nil && st.Power == vm.PoweredOff
	})
	if text := read(t, m.Dir+"/*.clean"); text == "" {
		t.Error("the guest was not asked: it left no file")
	}
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))

	h.set("tools.ms", -1)
	must(t, d.Start(t.Context(), m))
	if err := d.Power(t.Context(), m, vm.ActionShutdown); !hasCode(err, vm.CodeHypervisor) {
		t.Errorf("without tools: got %v, want VMware's refusal", err)
	}
	h.set("tools.ms", 0)
	h.set("hang.VixVM_PowerOff.guest", "")
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("while the guest is asked: got %+v, %v, want powered-on", st, err)
	}
	must(t, d.Power(t.Context(), m, vm.ActionOff))
	h.clear()
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)
}

// A screenshot is VMware's PNG. A machine that is off has none. If VMware fails, the error contains its text.
func TestScreenshot(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.running(d)
	for range 100 {
		shot, err := d.Screenshot(t.Context(), m)
		must(t, err)
		if _, err := png.Decode(bytes.NewReader(shot)); err != nil {
			t.Fatal(err)
		}
	}
	h.set("error.VixVM_CaptureScreenImage", 6)
	if _, err := d.Screenshot(t.Context(), m); !hasCode(err, vm.CodeHypervisor) {
		t.Errorf("if VMware refuses: got %v", err)
	}
	h.clear()
	must(t, d.Power(t.Context(), m, vm.ActionOff))
	if _, err := d.Screenshot(t.Context(), m); !hasCode(err, vm.CodePower) {
		t.Errorf("of a machine that is off: got %v, want %s", err, vm.CodePower)
	}
	if _, err := os.Stat(m.Dir); err != nil {
		t.Error(err)
	}
	must(t, d.Destroy(t.Context(), m))
}
