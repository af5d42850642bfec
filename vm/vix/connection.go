//go:build vix && cgo && !windows

package vix

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

const (
	// maxCalls bounds the running calls of VMware's library. A call that never returns counts for ever, and keeps a
	// thread.
	maxCalls = 32

	// maxToolsWaits bounds the waits for tools. They are calls that take seconds, and must not keep others waiting.
	maxToolsWaits = 16

	// hostOptionVmrun is an undocumented option that VMware's vmrun sets on macOS.
	hostOptionVmrun = 0x200
)

// connection is the connection to VMware. There is only one, because VMware limits the connections to a host.
type connection struct {
	library   string // path of VMware's library
	host      *govix.Host
	deadlines vmware.Deadlines

	calls      chan struct{} // a semaphore with an item for each running call
	toolsWaits chan struct{} // likewise for waits for tools
}

func connect(goos string, o Options) (*connection, error) {
	library, err := load(o.Library, goos)
	if err != nil {
		return nil, &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: err.Error()}
	}
	c := &connection{
		library: library, deadlines: o.Deadlines,
		calls: make(chan struct{}, maxCalls), toolsWaits: make(chan struct{}, maxToolsWaits),
	}
	err = c.connect(o.HostOptions)
	if isCode(err, vmware.CodeLicence) && o.HostOptions == 0 && goos == "darwin" && c.connect(hostOptionVmrun) == nil {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *connection) connect(options int) error {
	hosts := make(chan *govix.Host, 1)
	err := c.call(context.Background(), "accept a connection", c.deadlines.Connect, func() error {
		host, err := govix.Connect(govix.ConnectConfig{Provider: govix.VMWARE_WORKSTATION, Options: govix.HostOption(options)})
		repairSignals() // VMware's wrapper library has just loaded the other library
		hosts <- host
		return err
	})
	if err != nil {
		message := err.Error()
		if e, ok := errors.AsType[*vm.Error](err); ok {
			message = e.Message
		}
		return &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: c.library + " was opened, but " + message, Err: err}
	}
	c.host = <-hosts
	return nil
}

// disconnect waits until no call runs, calls closeVMs and disconnects. It returns false if that takes too long.
// Afterwards no call can start.
func (c *connection) disconnect(closeVMs func()) bool {
	timer := time.NewTimer(c.deadlines.Read + c.deadlines.Tools)
	defer timer.Stop()
	for range maxCalls + maxToolsWaits {
		select {
		case c.calls <- struct{}{}:
		case c.toolsWaits <- struct{}{}:
		case <-timer.C:
			return false
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		closeVMs()
		c.host.Disconnect()
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

// call runs f, which calls VMware's library, and waits at most limit for it. step says what f does, in the form that
// [explain] needs. The given VMs stay acquired until f returns, even if call returns earlier.
func (c *connection) call(ctx context.Context, step string, limit time.Duration, f func() error, vms ...*vmRef) error {
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
		err := recovered(f)
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

// recovered calls f and returns a panic as an error, so that it fails one call and not the daemon.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a call of VMware's library: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
