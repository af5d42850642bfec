//go:build vix && cgo && !windows

package vix

import "sync/atomic"

// toolsWait is a call of WaitForToolsInGuest. VIX does not know the state of the guest's tools before such a call has
// succeeded.
type toolsWait struct {
	done      atomic.Bool
	succeeded atomic.Bool
}

// isKnown reports whether VIX knows the tools' state.
func (w *toolsWait) isKnown() bool { return w != nil && w.succeeded.Load() }

// isDue reports whether another wait should start.
func (w *toolsWait) isDue() bool { return w == nil || w.done.Load() && !w.succeeded.Load() }

// waitForTools starts a wait in the background. The wait opens the machine a second time instead of acquiring it, so
// that the machine can be used meanwhile. It returns nil if too many waits are running.
func (c *connection) waitForTools(path string) *toolsWait {
	select {
	case c.toolsWaits <- struct{}{}:
	default:
		return nil
	}
	w := new(toolsWait)
	go func() {
		defer func() { <-c.toolsWaits }()
		defer w.done.Store(true)
		w.succeeded.Store(recovered(func() error {
			v, h, err := openVMX(c.host, path)
			if err != nil {
				return err
			}
			defer releaseHandle(h)
			return v.WaitForToolsInGuest(c.deadlines.Tools)
		}) == nil)
	}()
	return w
}
