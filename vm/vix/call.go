//go:build vix && cgo && !windows

package vix

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	govix "github.com/hooklift/govix"
)

const (
	// callsAtOnce bounds the calls under way in VMware's library. Calls that
	// never return keep their place, and each keeps a thread.
	callsAtOnce = 32

	// waitsAtOnce bounds the waits for tools, which are calls of some seconds
	// and must not take the places of others.
	waitsAtOnce = 16
)

// machine is a .vmx file and, while it is open in VMware's library, the VM.
// There is one for each path that someone is at work on or that is open.
type machine struct {
	path  string
	users int // who holds or awaits turn; guarded by Driver.mu

	// turn is held by the one goroutine that may use the machine. It guards
	// what follows.
	turn   chan struct{}
	vm     *govix.VM // nil while it is not open
	handle handle
	tools  *toolsWait // the last one begun since the machine was powered on
}

// hold is the right to use a machine. A call that outlives the caller's
// patience goes on holding it.
type hold struct {
	*machine
	driver *Driver
	shares atomic.Int32
}

// take waits for the machine's turn. Who gets a hold calls drop.
func (d *Driver) take(ctx context.Context, path string, limit time.Duration) (*hold, error) {
	m, err := d.use(path)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case m.turn <- struct{}{}:
		h := &hold{machine: m, driver: d}
		h.shares.Store(1)
		return h, nil
	case <-ctx.Done():
		d.unuse(m)
		return nil, fmt.Errorf("waiting for another call of the machine: %w", ctx.Err())
	case <-timer.C:
		d.unuse(m)
		return nil, unanswered("finish an earlier call of the machine", limit)
	}
}

// use finds or makes the machine for path.
func (d *Driver) use(path string) (*machine, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed()
	}
	m := d.machines[path]
	if m == nil {
		m = &machine{path: path, turn: make(chan struct{}, 1)}
		d.machines[path] = m
	}
	m.users++
	return m, nil
}

// unuse forgets a machine that nobody is at work on and that is not open.
func (d *Driver) unuse(m *machine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.users--; m.users == 0 && m.vm == nil {
		delete(d.machines, m.path)
	}
}

// drop gives a share of the hold back, and with the last one the machine.
func (h *hold) drop() {
	if h.shares.Add(-1) == 0 {
		<-h.turn
		h.driver.unuse(h.machine)
	}
}

// call runs f, which calls VMware's library, for as long as limit. step is
// what it does, as in explain. The machines held stay held until f returns,
// also when call has long returned.
func (d *Driver) call(ctx context.Context, step string, limit time.Duration, f func() error, held ...*hold) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not asking VMware to %s: %w", step, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case d.calls <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting to %s: %w", step, ctx.Err())
	case <-timer.C:
		return unanswered(fmt.Sprintf("answer any of %d earlier calls, so that it could %s,", callsAtOnce, step), limit)
	}
	for _, h := range held {
		h.shares.Add(1)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-d.calls }()
		err := guard(f)
		for _, h := range held {
			h.drop()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return explain(step, err)
	case <-ctx.Done():
		return fmt.Errorf("waiting for VMware to %s: %w", step, ctx.Err())
	case <-timer.C:
		return unanswered(step, limit)
	}
}

// guard makes an error of a panic, so that it fails one call and not the daemon.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a call of VMware's library: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// do is call with the open machine, which it opens if need be. A machine whose
// call failed is opened anew for the next one: its handle may be void.
func (h *hold) do(ctx context.Context, step string, limit time.Duration, f func() error) error {
	return h.driver.call(ctx, step, limit, func() error {
		if err := h.open(); err != nil {
			return err
		}
		err := f()
		if err != nil {
			h.close()
		}
		return err
	}, h)
}

// open opens the machine in VMware's library. It blocks.
func (h *hold) open() error {
	if h.vm != nil {
		return nil
	}
	v, handle, err := open(h.driver.host, h.path)
	if err != nil {
		return err
	}
	h.vm, h.handle = v, handle
	return nil
}

// close gives the machine back to VMware's library.
func (h *hold) close() {
	if h.vm == nil {
		return
	}
	release(h.handle)
	h.vm, h.handle, h.tools = nil, 0, nil
}
