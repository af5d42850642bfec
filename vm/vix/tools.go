//go:build vix && cgo

package vix

import (
	"sync/atomic"
	"time"

	govix "github.com/hooklift/govix"
)

// addressPatience is how long a reader of a machine's state waits for the guest's address. A guest that answers needs
// milliseconds.
const addressPatience = 500 * time.Millisecond

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

// addressRead is a read of the guest's address, which can hang with the guest.
type addressRead struct {
	last string        // the address that the read before returned
	ip   string        // valid once done is closed
	done chan struct{} // is closed at the end
}

// waitForTools starts a wait in the background. It returns nil if too many calls of this kind are running.
func (c *connection) waitForTools(path string) *toolsWait {
	w := new(toolsWait)
	started := c.inBackground(path, func(v *govix.VM) {
		w.succeeded.Store(v.WaitForToolsInGuest(c.deadlines.Tools) == nil)
	}, func() { w.done.Store(true) })
	if !started {
		return nil
	}
	return w
}

// guestAddress returns the address that VMware's tools in the guest report, or "". It reads the address in the
// background, and returns the last known one if that takes long. It is called in [vmRef.call].
func (r *vmRef) guestAddress() string {
	last := ""
	if r.address != nil {
		select {
		case <-r.address.done:
			last = r.address.ip
		default:
			return r.address.last
		}
	}
	read := &addressRead{last: last, done: make(chan struct{})}
	started := r.vms.conn.inBackground(r.path, func(v *govix.VM) {
		// Before the guest has an address, the variable is empty or an error.
		read.ip, _ = v.ReadVariable(govix.VM_GUEST_VARIABLE, "ip")
	}, func() { close(read.done) })
	if !started {
		return last
	}
	r.address = read
	timer := time.NewTimer(addressPatience)
	defer timer.Stop()
	select {
	case <-read.done:
		return read.ip
	case <-timer.C:
		return last
	}
}

// inBackground calls f with the machine at path, and then end. It opens the machine a second time instead of acquiring
// it, so that the machine can be used meanwhile. It returns false, and calls neither, if too many such calls are
// running.
func (c *connection) inBackground(path string, f func(v *govix.VM), end func()) bool {
	select {
	case c.background <- struct{}{}:
	default:
		return false
	}
	go func() {
		defer func() { <-c.background }()
		defer end()
		_ = recovered(func() error { // a panic, or an error that the next call of the machine has too
			s := c.sessions.use()
			defer c.sessions.done(s)
			v, h, err := openVMX(s.host, path)
			if err != nil {
				return err
			}
			defer releaseHandle(h)
			f(v)
			return nil
		})
	}()
	return true
}
