package vmtest

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"io"
	"io/fs"
	"testing"
	"time"

	"osx-builder/vm"
)

// powerActions does every power action, each twice, and checks that another driver
// sees the result.
func powerActions(t *testing.T, h Harness) {
	d, m := h.startMachine(t)
	p := d.(vm.Powerer)
	h.waitUp(t, d, m)
	do := func(a vm.Action, want vm.Power) {
		t.Helper()
		must(t, string(a), p.Power(h.context(t), m, a))
		if st := h.waitPower(t, h.Open(t), m, want); st.Died {
			t.Errorf("after %s: got %+v, want Died to be false", a, st)
		}
		if a != vm.ActionReset {
			must(t, string(a)+" again", p.Power(h.context(t), m, a))
			h.waitPower(t, d, m, want)
		}
	}
	do(vm.ActionSuspend, vm.Suspended)
	do(vm.ActionResume, vm.PoweredOn)
	h.waitUp(t, d, m)
	do(vm.ActionReset, vm.PoweredOn)
	h.waitUp(t, d, m)
	h.shutDown(t, d, p, m)
	if st := h.inspect(t, d, m); st.Died {
		t.Errorf("after the guest shut down: got %+v, want Died to be false", st)
	}
	must(t, "Start after Shutdown", d.Start(h.context(t), m))
	h.waitUp(t, d, m)
	do(vm.ActionSuspend, vm.Suspended)
	do(vm.ActionOff, vm.PoweredOff)
	must(t, "Start after Suspend and Off", d.Start(h.context(t), m))
	h.waitPower(t, d, m, vm.PoweredOn)
	do(vm.ActionOff, vm.PoweredOff)
	h.destroy(t, d, m)
}

// shutDown asks the guest until it shuts down: a guest that gave a sign of life may
// not react to its power button yet.
func (h Harness) shutDown(t *testing.T, d vm.Driver, p vm.Powerer, m vm.Machine) {
	t.Helper()
	ctx := h.context(t)
	for h.inspect(t, d, m).Power != vm.PoweredOff {
		must(t, string(vm.ActionShutdown), p.Power(ctx, m, vm.ActionShutdown))
		select {
		case <-ctx.Done():
			t.Fatalf("the guest does not shut down within %v", h.Limit)
		case <-time.After(time.Second):
		}
	}
}

// interruptedPowerActions cancels each action at once and after some time, and
// repeats it. In the end it destroys a suspended machine.
func interruptedPowerActions(t *testing.T, h Harness) {
	d, m := h.startMachine(t)
	p := d.(vm.Powerer)
	for _, step := range []struct {
		a    vm.Action
		want vm.Power
	}{
		{vm.ActionSuspend, vm.Suspended},
		{vm.ActionResume, vm.PoweredOn},
		{vm.ActionSuspend, vm.Suspended},
	} {
		for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(h.context(t), after)
			err := p.Power(ctx, m, step.a)
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s interrupted after %v: got %v, want an error that wraps the context's", step.a, after, err)
			}
		}
		must(t, string(step.a)+" after interruptions", p.Power(h.context(t), m, step.a))
		h.waitPower(t, d, m, step.want)
	}
	h.destroy(t, d, m)
}

// waitPower waits for a power state: a guest needs time to shut down.
func (h Harness) waitPower(t *testing.T, d vm.Driver, m vm.Machine, want vm.Power) vm.Status {
	t.Helper()
	ctx := h.context(t)
	for {
		st := h.inspect(t, d, m)
		if st.Power == want {
			return st
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the machine is %q and does not become %q within %v", st.Power, want, h.Limit)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// screenshot takes two screenshots of a machine.
func screenshot(t *testing.T, h Harness, d vm.Driver, m vm.Machine) {
	s := d.(vm.Screenshotter)
	for range 2 {
		shot, err := s.Screenshot(h.context(t), m)
		must(t, "Screenshot", err)
		picture, err := png.Decode(bytes.NewReader(shot))
		must(t, "reading the screenshot as PNG", err)
		if size := picture.Bounds().Size(); size.X < 1 || size.Y < 1 {
			t.Errorf("got a screenshot of %v", size)
		}
	}
}

// console reads the console of a machine, and of a machine that was never created.
func console(t *testing.T, h Harness, d vm.Driver, m vm.Machine) {
	c := d.(vm.Consoler)
	if _, err := c.Console(h.context(t), h.newMachine(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a machine that was never created: got %v, want %v", err, fs.ErrNotExist)
	}
	if fake, is := d.(*Driver); is {
		must(t, "WriteConsole", fake.WriteConsole(m, "hello\n"))
	}
	log, err := c.Console(h.context(t), m)
	must(t, "Console", err)
	defer log.Close()
	begin := make([]byte, 1)
	_, err = io.ReadFull(log, begin)
	must(t, "reading the console", err)
	end, err := log.Seek(0, io.SeekEnd)
	must(t, "finding the console's end", err)
	if end < 1 {
		t.Errorf("got a console of %d bytes, want what the guest wrote", end)
	}
}
