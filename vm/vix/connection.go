//go:build vix && cgo

package vix

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

const (
	// maxCalls bounds the running calls of VMware's library. A call that never returns counts for ever, and keeps a
	// thread.
	maxCalls = 32

	// maxBackground bounds the calls in the background: waits for tools, which take seconds, and reads of addresses. They
	// must not keep other calls waiting.
	maxBackground = 32

	// closeTimeout bounds the wait for running calls when the driver is closed. The daemon has nine seconds to end, and
	// also stops its jobs in them.
	closeTimeout = 4 * time.Second

	// The pauses between attempts while VMware answers that something is busy.
	firstBusyPause = 20 * time.Millisecond
	lastBusyPause  = time.Second

	// hostOptionVmrun is an undocumented option that VMware's vmrun sets on macOS.
	hostOptionVmrun = 0x200
)

// connection is the connection to VMware. There is only one, because VMware limits the connections to a host.
type connection struct {
	library   string // path of VMware's library
	sessions  *sessions
	options   int // of VixHost_Connect
	deadlines vmware.Deadlines

	calls      chan struct{} // a semaphore with an item for each running call
	background chan struct{} // likewise for calls in the background
}

func connect(goos string, o Options) (*connection, error) {
	library, err := load(o.Library, goos)
	if err != nil {
		return nil, &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: err.Error()}
	}
	c := &connection{
		library: library, deadlines: o.Deadlines,
		calls: make(chan struct{}, maxCalls), background: make(chan struct{}, maxBackground),
	}
	c.options = o.HostOptions
	host, err := c.connect(context.Background())
	if isCode(err, vmware.CodeLicence) && o.HostOptions == 0 && goos == "darwin" {
		c.options = hostOptionVmrun
		if h, e := c.connect(context.Background()); e == nil {
			host, err = h, nil
		}
	}
	if err != nil {
		return nil, err
	}
	c.sessions = newSessions(host, c.connect, o.Log)
	return c, nil
}

// connect connects to VMware. If VMware accepts the connection only after the deadline, it is closed again.
func (c *connection) connect(ctx context.Context) (*govix.Host, error) {
	hosts := make(chan *govix.Host, 1)
	var late atomic.Bool
	discard := func() {
		select {
		case host := <-hosts:
			host.Disconnect()
		default:
		}
	}
	err := c.run(ctx, "accept a connection", c.deadlines.Connect, func() error {
		host, err := govix.Connect(govix.ConnectConfig{
			Provider: govix.VMWARE_WORKSTATION, Options: govix.HostOption(c.options),
		})
		if err != nil {
			return err
		}
		if hosts <- host; late.Load() {
			discard()
		}
		return nil
	})
	if err != nil {
		late.Store(true)
		go discard()
		return nil, &vm.Error{
			Code: vm.CodeHypervisorUnavailable, Message: c.library + " was opened, but " + message(err), Err: err,
		}
	}
	return <-hosts, nil
}

// disconnect waits until no call runs, calls closeVMs and disconnects. It returns false if that takes too long.
// Afterwards no call can start.
func (c *connection) disconnect(closeVMs func()) bool {
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	c.sessions.close()
	for range maxCalls + maxBackground {
		select {
		case c.calls <- struct{}{}:
		case c.background <- struct{}{}:
		case <-timer.C:
			return false
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		closeVMs()
		c.sessions.end()
	}()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// isBusy reports whether no further call can start.
func (c *connection) isBusy() bool { return len(c.calls) == cap(c.calls) }

// call runs f, which calls VMware's library in a session, and waits at most limit for it. If the connection is lost,
// call first waits for another. step says what f does, in the form that [explain] needs. The given VMs stay acquired
// until f returns, even if call returns earlier.
func (c *connection) call(ctx context.Context, step string, limit time.Duration, f func(s *session) error, vms ...*vmRef) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	if err := c.sessions.await(ctx, timer.C); err != nil {
		return err
	}
	return c.run(ctx, step, limit, func() error {
		s := c.sessions.use()
		defer c.sessions.done(s)
		err := f(s)
		if isLost(err) {
			c.sessions.lose(s, err)
		}
		return err
	}, vms...)
}

// run is call without a session.
func (c *connection) run(ctx context.Context, step string, limit time.Duration, f func() error, vms ...*vmRef) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not asking VMware to %s: %w", step, err)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case c.calls <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting to %s: %w", step, ctx.Err())
	case <-timer.C:
		return &vm.Error{
			Code:    vm.CodeHypervisor,
			Message: fmt.Sprintf("VMware could not %s within %v, because it has not finished %d earlier calls", step, limit, maxCalls),
			Err:     context.DeadlineExceeded,
		}
	}
	for _, v := range vms {
		v.retain()
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-c.calls }()
		err := c.patiently(ctx, limit, f)
		repairSignals() // VMware loads parts of itself in many calls
		for _, v := range vms {
			v.Release()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return explain(step, err, vms)
	case <-ctx.Done():
		return fmt.Errorf("waiting for VMware to %s: %w", step, ctx.Err())
	case <-timer.C:
		return timedOut(step, limit)
	}
}

// patiently calls f, and again while VMware answers that something is busy, but not for longer than limit.
func (c *connection) patiently(ctx context.Context, limit time.Duration, f func() error) error {
	end := time.Now().Add(limit)
	for pause := firstBusyPause; ; pause = min(2*pause, lastBusyPause) {
		err := recovered(f)
		if !isCode(err, vmware.CodeBusy) || time.Now().Add(pause).After(end) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// recovered calls f and returns a panic as an error, so that it fails one call and not the daemon.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a call of VMware's library: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
