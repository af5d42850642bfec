package vm_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// newReadyHarness returns a harness with a machine that is ready.
func newReadyHarness(t *testing.T) (*harness, vm.Machine) {
	t.Helper()
	h := newHarness(t).open()
	v := h.create(h.request())
	h.wait(v.ID)
	return h, vm.Machine{ID: v.ID, Dir: filepath.Join(h.dir, "vms", v.ID)}
}

func (h *harness) console(id string, tail int64, follow bool) io.ReadCloser {
	h.t.Helper()
	c, err := h.vms.Console(h.t.Context(), id, tail, follow)
	must(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestConsole(t *testing.T) {
	h, m := newReadyHarness(t)
	read := func(tail int64) string {
		t.Helper()
		b, err := io.ReadAll(h.console(m.ID, tail, false))
		must(t, err)
		return string(b)
	}
	if got := read(100); got != "" {
		t.Errorf("of a guest that wrote nothing: got %q", got)
	}
	must(t, h.driver.WriteConsole(m, "one\ntwo\n"))
	for tail, want := range map[int64]string{100: "one\ntwo\n", 8: "one\ntwo\n", 4: "two\n", 1: "\n"} {
		if got := read(tail); got != want {
			t.Errorf("the last %d bytes: got %q, want %q", tail, got, want)
		}
	}
	must(t, h.driver.WriteConsole(m, strings.Repeat("x", 3<<20)))
	if got := read(3 << 20); len(got) != vm.ConsoleTail {
		t.Errorf("got %d bytes, want at most %d", len(got), vm.ConsoleTail)
	}
	for id, want := range map[string]vm.Code{"x": vm.CodeNotFound, "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489": vm.CodeNotFound} {
		_, err := h.vms.Console(t.Context(), id, 1, false)
		wantCode(t, "the console of "+id, err, want)
	}
}

// A follower that begins before the guest writes anything gets everything until
// the machine is destroyed.
func TestConsoleIsFollowed(t *testing.T) {
	h, m := newReadyHarness(t)
	c := h.console(m.ID, 100, true)
	for _, word := range []string{"one\n", "two\n"} {
		must(t, h.driver.WriteConsole(m, word))
		b := make([]byte, 100)
		if n, err := c.Read(b); err != nil || string(b[:n]) != word {
			t.Errorf("got %q, %v, want %q", b[:n], err, word)
		}
	}
	must(t, h.vms.Destroy(t.Context(), m.ID))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after Destroy: got %d bytes, %v, want the end", n, err)
	}
}

// A follower continues at the beginning of a log that the driver emptied, and gets
// ErrSlow if it is too far behind.
func TestConsoleIsEmptied(t *testing.T) {
	h, m := newReadyHarness(t)
	must(t, h.driver.WriteConsole(m, "a long story\n"))
	c := h.console(m.ID, 100, true)
	b := make([]byte, 100)
	_, err := c.Read(b)
	must(t, err)
	must(t, os.Truncate(filepath.Join(m.Dir, "serial.log"), 0))
	must(t, h.driver.WriteConsole(m, "new\n"))
	if n, err := c.Read(b); err != nil || string(b[:n]) != "new\n" {
		t.Errorf("got %q, %v, want what is in the emptied log", b[:n], err)
	}
	must(t, h.driver.WriteConsole(m, strings.Repeat("x", vm.ConsoleKept+1)))
	if n, err := c.Read(b); n != 0 || !errors.Is(err, vm.ErrSlow) {
		t.Errorf("too far behind: got %d bytes, %v, want %v", n, err, vm.ErrSlow)
	}
}

// The number of followers is bounded. They end with the daemon and with their
// context.
func TestFollowersAreBounded(t *testing.T) {
	h, m := newReadyHarness(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone, err := h.vms.Console(ctx, m.ID, 1, true)
	must(t, err)
	for range 63 {
		h.console(m.ID, 1, true)
	}
	_, err = h.vms.Console(ctx, m.ID, 1, true)
	wantCode(t, "the 65th follower", err, vm.CodeBusy)
	cancel()
	if _, err := gone.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: got %v", err)
	}
	must(t, gone.Close())
	last := h.console(m.ID, 1, true)
	time.AfterFunc(50*time.Millisecond, h.vms.Close)
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("once the daemon stops: got %v, want an error", err)
	}
}

// plainDriver is a driver without the optional interfaces.
type plainDriver struct{ vm.Driver }

func TestNotSupported(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver = plainDriver{&vmtest.Driver{}} }
	h.open()
	id := h.create(h.request()).ID
	h.wait(id)
	_, err := h.vms.Console(t.Context(), id, 1, false)
	wantCode(t, "a console", err, vm.CodeNotSupported)
	_, err = h.vms.Screenshot(t.Context(), id)
	wantCode(t, "a screenshot", err, vm.CodeNotSupported)
	_, err = h.vms.Power(t.Context(), id, vm.ActionOff)
	wantCode(t, "a power action", err, vm.CodeNotSupported)
}
