//go:build vix && cgo

package vix

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm/vmware"
)

// openVMs holds the machines that are open in VMware's library, and a lock for each.
type openVMs struct {
	conn *connection

	mu     sync.Mutex // guards the fields below
	byPath map[string]*openVM
	closed bool
}

// openVM is a .vmx file with users, or a machine that is open in VMware's library.
type openVM struct {
	path  string
	users int // goroutines that hold or wait for the lock; guarded by openVMs.mu

	lock    chan struct{} // a mutex with room for one item; it guards the fields below
	vm      *govix.VM     // nil while the machine is not open
	handle  handle
	session *session     // in which it is open
	tools   *toolsWait   // the last wait since the machine was powered on
	address *addressRead // the last read since the machine was powered on
}

// vmRef is the right to use a machine, which nobody else has meanwhile. A call that outlives its caller retains it.
type vmRef struct {
	*openVM
	vms    *openVMs
	shares atomic.Int32
}

func newOpenVMs(conn *connection) *openVMs {
	return &openVMs{conn: conn, byPath: make(map[string]*openVM)}
}

// acquire locks the machine whose .vmx is at path. The caller releases the vmRef.
func (o *openVMs) acquire(ctx context.Context, path string, limit time.Duration) (*vmRef, error) {
	v, err := o.addUser(path)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v.lock <- struct{}{}:
		r := &vmRef{openVM: v, vms: o}
		r.shares.Store(1)
		return r, nil
	case <-ctx.Done():
		o.removeUser(v)
		return nil, fmt.Errorf("waiting for another call of the machine: %w", ctx.Err())
	case <-timer.C:
		o.removeUser(v)
		return nil, timedOut("finish an earlier call of the machine", limit)
	}
}

func (o *openVMs) addUser(path string) (*openVM, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, errClosed()
	}
	v := o.byPath[path]
	if v == nil {
		v = &openVM{path: path, lock: make(chan struct{}, 1)}
		o.byPath[path] = v
	}
	v.users++
	return v, nil
}

// removeUser also removes the machine if it has no other user and is not open.
func (o *openVMs) removeUser(v *openVM) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if v.users--; v.users == 0 && v.vm == nil {
		delete(o.byPath, v.path)
	}
}

// close makes acquire fail from now on, and reports whether it did not before.
func (o *openVMs) close() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	wasOpen := !o.closed
	o.closed = true
	return wasOpen
}

func (o *openVMs) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

func (o *openVMs) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.byPath)
}

// closeAll closes all machines. It is called after close, when no call can run.
func (o *openVMs) closeAll() {
	var open []openVM
	o.mu.Lock()
	for _, v := range o.byPath {
		if v.vm != nil {
			open = append(open, openVM{handle: v.handle, session: v.session})
			v.vm, v.handle, v.session = nil, 0, nil
		}
	}
	o.mu.Unlock()
	for _, v := range open {
		releaseHandle(v.handle)
		o.conn.sessions.done(v.session)
	}
}

func (r *vmRef) retain() { r.shares.Add(1) }

// Release undoes acquire or retain. The last Release unlocks the machine.
func (r *vmRef) Release() {
	if r.shares.Add(-1) == 0 {
		<-r.lock
		r.vms.removeUser(r.openVM)
	}
}

// call is [connection.call] with the machine open. If the call fails, the machine is opened again for the next call,
// because its handle may be invalid. If the handle was invalid or the connection lost, call tries again.
func (r *vmRef) call(ctx context.Context, step string, limit time.Duration, f func() error) error {
	attempt := func() error {
		return r.vms.conn.call(ctx, step, limit, func(s *session) error {
			if err := r.open(s); err != nil {
				return err
			}
			err := f()
			if err != nil {
				r.close()
			}
			return err
		}, r)
	}
	err := attempt()
	for range 2 { // the machine's handle can be invalid, and then the connection's
		if isLost(err) || isCode(err, vmware.CodeInvalidHandle) {
			err = attempt()
		}
	}
	return err
}

// open opens the machine in this session, unless it is open in it. It is called in [connection.call].
func (r *vmRef) open(s *session) error {
	if r.vm != nil && r.session == s {
		return nil
	}
	r.close()
	v, handle, err := openVMX(s.host, r.path)
	if err != nil {
		return err
	}
	r.vm, r.handle, r.session = v, handle, r.vms.conn.sessions.retain(s)
	return nil
}

// close closes the machine in VMware's library.
func (r *vmRef) close() {
	if r.vm == nil {
		return
	}
	releaseHandle(r.handle)
	r.vms.conn.sessions.done(r.session)
	r.vm, r.handle, r.session, r.tools, r.address = nil, 0, nil, nil, nil
}
