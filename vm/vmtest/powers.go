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

// buttons walks a machine through every power action, each twice, and lets
// another driver see what it led to.
func buttons(t *testing.T, b Bench) {
	d, m := b.running(t)
	p, ok := d.(vm.Powerer)
	if !ok {
		t.Skip("this driver is no vm.Powerer")
	}
	b.up(t, d, m)
	press := func(a vm.Action, want vm.Power) {
		t.Helper()
		must(t, string(a), p.Power(b.context(t), m, a))
		b.power(t, b.Open(t), m, want)
		if a != vm.ActionReset {
			must(t, string(a)+" again", p.Power(b.context(t), m, a))
			b.power(t, d, m, want)
		}
	}
	press(vm.ActionSuspend, vm.Suspended)
	press(vm.ActionResume, vm.PoweredOn)
	b.up(t, d, m)
	press(vm.ActionReset, vm.PoweredOn)
	b.up(t, d, m)
	b.shutDown(t, d, p, m)
	must(t, "Start after Shutdown", d.Start(b.context(t), m))
	b.up(t, d, m)
	press(vm.ActionSuspend, vm.Suspended)
	press(vm.ActionOff, vm.PoweredOff)
	must(t, "Start after Suspend and Off", d.Start(b.context(t), m))
	b.power(t, d, m, vm.PoweredOn)
	press(vm.ActionOff, vm.PoweredOff)
	b.destroy(t, d, m)
}

// shutDown asks the guest until it ends: one that gave a sign of life may not
// listen to its power button yet.
func (b Bench) shutDown(t *testing.T, d vm.Driver, p vm.Powerer, m vm.Machine) {
	t.Helper()
	ctx := b.context(t)
	for b.inspect(t, d, m).Power != vm.PoweredOff {
		must(t, string(vm.ActionShutdown), p.Power(ctx, m, vm.ActionShutdown))
		select {
		case <-ctx.Done():
			t.Fatalf("the guest does not shut down within %v", b.Limit)
		case <-time.After(time.Second):
		}
	}
}

// buttonsInterrupted cuts each action off at once and a moment later, and
// repeats it. A suspended machine can be destroyed.
func buttonsInterrupted(t *testing.T, b Bench) {
	d, m := b.running(t)
	p, ok := d.(vm.Powerer)
	if !ok {
		t.Skip("this driver is no vm.Powerer")
	}
	for _, step := range []struct {
		a    vm.Action
		want vm.Power
	}{{vm.ActionSuspend, vm.Suspended}, {vm.ActionResume, vm.PoweredOn}, {vm.ActionSuspend, vm.Suspended}} {
		for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(b.context(t), after)
			err := p.Power(ctx, m, step.a)
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s interrupted after %v: got %v, want an error that wraps the context's", step.a, after, err)
			}
		}
		must(t, string(step.a)+" after interruptions", p.Power(b.context(t), m, step.a))
		b.power(t, d, m, step.want)
	}
	b.destroy(t, d, m)
}

// power waits for a power state: a guest takes its time to shut down.
func (b Bench) power(t *testing.T, d vm.Driver, m vm.Machine, want vm.Power) {
	t.Helper()
	ctx := b.context(t)
	for {
		st := b.inspect(t, d, m)
		if st.Power == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the machine is %q and does not become %q within %v", st.Power, want, b.Limit)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// screen reads a machine's screen, and that of one that has none.
func screen(t *testing.T, b Bench) {
	s, ok := b.Open(t).(vm.Screenshotter)
	if !ok {
		t.Skip("this driver is no vm.Screenshotter")
	}
	d, m := b.running(t)
	b.up(t, d, m)
	for range 2 {
		shot, err := s.Screenshot(b.context(t), m)
		must(t, "Screenshot", err)
		picture, err := png.Decode(bytes.NewReader(shot))
		must(t, "reading the screenshot as PNG", err)
		if size := picture.Bounds().Size(); size.X < 1 || size.Y < 1 {
			t.Errorf("got a screenshot of %v", size)
		}
	}
	b.destroy(t, d, m)
}

// console reads a machine's console, and that of one that was never made.
func console(t *testing.T, b Bench) {
	c, ok := b.Open(t).(vm.Consoler)
	if !ok {
		t.Skip("this driver is no vm.Consoler")
	}
	if _, err := c.Console(b.context(t), b.machine(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a machine that was never made: got %v, want %v", err, fs.ErrNotExist)
	}
	d, m := b.running(t)
	b.up(t, d, m)
	if fake, is := d.(*Driver); is {
		must(t, "Say", fake.Say(m, "hello\n"))
	}
	log, err := c.Console(b.context(t), m)
	must(t, "Console", err)
	defer log.Close()
	begin := make([]byte, 1)
	_, err = io.ReadFull(log, begin)
	must(t, "reading the console", err)
	end, err := log.Seek(0, io.SeekEnd)
	must(t, "finding the console's end", err)
	b.destroy(t, d, m)
	if end < 1 {
		t.Errorf("got a console of %d bytes, want what the guest wrote", end)
	}
}
