// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"context"
	"errors"
	"testing"

	"osx-builder/vm/vmtest/vcenter"
)

// Each step that is cut off while its task runs is finished by the next call, and nothing is left in the end.
func TestSlowTasks(t *testing.T) {
	release := vcenter.SlowTasks()
	defer release()
	t.Run("modes", func(t *testing.T) {
		for name, o := range modes {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, o)
				d := b.open(t)
				for _, s := range b.steps(d, b.machine()) {
					b.cutOff(t, s)
				}
				b.checkEnd(t, "cut off", nil)
				if calls, _ := b.server.Calls(); calls["CancelTask"] == 0 {
					t.Error("no task was cancelled")
				}
			})
		}
	})
}

// cutOff calls with ever longer deadlines until a call succeeds.
func (b *bench) cutOff(t *testing.T, s step) {
	t.Helper()
	for limit := vcenter.SlowTask / 2; ; limit += vcenter.SlowTask / 2 {
		c, cancel := context.WithTimeout(ctx(t), limit)
		err := s.call(c)
		cut := c.Err() != nil
		cancel()
		switch {
		case err == nil:
			return
		case !cut:
			t.Fatalf("%s: %v", s.name, err)
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("%s was cut off: got %v, want an error that wraps the context's", s.name, err)
		}
	}
}
