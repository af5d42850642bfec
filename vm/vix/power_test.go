//go:build vix && cgo && !windows

package vix_test

import (
	"bytes"
	"errors"
	"image/png"
	"os"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vix"
)

func hasCode(err error, code vm.Code) bool {
	var e *vm.Error
	return errors.As(err, &e) && e.Code == code
}

// up returns a machine whose tools run.
func (b *bench) up(d *vix.Driver) vm.Machine {
	b.t.Helper()
	m := b.running(d)
	until(b.t, "up", func() bool {
		st, err := d.Inspect(b.t.Context(), m)
		return err == nil && st.Tools == vm.ToolsRunning
	})
	return m
}

// A shutdown is the guest's own: it leaves its mark. A guest whose tools do
// not run refuses; one that is deaf holds nobody up, and the machine can be
// read and switched off meanwhile.
func TestShutdown(t *testing.T) {
	b := newBench(t)
	d := b.open()
	m := b.up(d)
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))
	until(t, "off", func() bool {
		st, err := d.Inspect(t.Context(), m)
		return err == nil && st.Power == vm.PoweredOff
	})
	if text := read(t, m.Dir+"/*.clean"); text == "" {
		t.Error("the guest was not asked: it left no mark")
	}
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))

	b.set("tools.ms", -1)
	must(t, d.Start(t.Context(), m))
	if err := d.Power(t.Context(), m, vm.ActionShutdown); !hasCode(err, vm.CodeHypervisor) {
		t.Errorf("without tools: got %v, want VMware's refusal", err)
	}
	b.set("tools.ms", 0)
	b.set("hang.VixVM_PowerOff.guest", "")
	begin := time.Now()
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("a deaf guest held the shutdown up for %v", took)
	}
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("while the guest is asked: got %+v, %v, want powered-on", st, err)
	}
	must(t, d.Power(t.Context(), m, vm.ActionOff))
	b.clear()
	must(t, d.Destroy(t.Context(), m))
	b.gone(d, m)
}

// The screen is VMware's PNG; of a machine that is off there is none, and
// VMware's own words are passed on where it fails.
func TestScreenshot(t *testing.T) {
	b := newBench(t)
	d := b.open()
	m := b.running(d)
	for range 100 {
		shot, err := d.Screenshot(t.Context(), m)
		must(t, err)
		if _, err := png.Decode(bytes.NewReader(shot)); err != nil {
			t.Fatal(err)
		}
	}
	b.set("error.VixVM_CaptureScreenImage", 6)
	if _, err := d.Screenshot(t.Context(), m); !hasCode(err, vm.CodeHypervisor) {
		t.Errorf("where VMware refuses: got %v", err)
	}
	b.clear()
	must(t, d.Power(t.Context(), m, vm.ActionOff))
	if _, err := d.Screenshot(t.Context(), m); !hasCode(err, vm.CodePower) {
		t.Errorf("of a machine that is off: got %v, want %s", err, vm.CodePower)
	}
	if _, err := os.Stat(m.Dir); err != nil {
		t.Error(err)
	}
	must(t, d.Destroy(t.Context(), m))
}
