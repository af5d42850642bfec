package vm

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// inspectsAtOnce bounds how many machines are inspected side by side for
	// readers of many machines. Machines that are slow to answer do not count.
	inspectsAtOnce = 16

	// listTimeout is how long readers of all machines wait for slow ones. A
	// machine that is well answers within 0.7 seconds even if its guest does
	// not, and a person waits two seconds for a list.
	listTimeout = 2 * time.Second

	// slowAfter is how long an inspection counts among inspectsAtOnce. On an
	// idle host it takes 5 ms. One that takes longer waits and costs the host
	// nothing, so it must not keep others from starting.
	slowAfter = 100 * time.Millisecond
)

// inspections inspects machines for readers of many machines: lists, counts and
// events. One machine has one inspection at a time, however many readers it has.
// A reader that comes while one runs gets the result of the next one, because
// that of the first may be older than what the reader has seen already.
type inspections struct {
	driver Driver
	log    *slog.Logger
	tasks  *tasks
	slots  chan struct{} // has a value for each inspection that is not slow

	mu      sync.Mutex
	running map[string]*inspection // by machine; guarded by mu
}

// inspection is one call of Driver.Inspect with its readers. Fields without
// another comment are guarded by inspections.mu.
type inspection struct {
	machine Machine
	ctx     context.Context // ends when no reader waits any more
	cancel  context.CancelFunc
	readers int
	begun   bool        // the driver has been called
	next    *inspection // for readers that came after that

	done   chan struct{} // closed once status and err are set
	status Status
	err    error
}

func newInspections(d Driver, log *slog.Logger, t *tasks) *inspections {
	return &inspections{
		driver: d, log: log, tasks: t,
		slots: make(chan struct{}, inspectsAtOnce), running: make(map[string]*inspection),
	}
}

// read returns the machine's live state, or an *Error of CodeOpen if the
// hypervisor has not returned it before ctx ends.
func (i *inspections) read(ctx context.Context, machine Machine) (Status, error) {
	n := i.join(machine)
	if n == nil {
		return Status{}, shuttingDown()
	}
	defer i.leave(n)
	select {
	case <-n.done:
		return n.status, n.err
	case <-ctx.Done():
		return Status{}, &Error{
			Code:    CodeOpen,
			Message: fmt.Sprintf("the hypervisor has not returned the state of machine %s in time; GET /vms/%s waits for it up to %v", machine.ID, machine.ID, inspectTimeout),
			Err:     context.Cause(ctx),
		}
	}
}

// join makes the caller a reader of the machine's next inspection. It returns
// nil if the Manager stops.
func (i *inspections) join(machine Machine) *inspection {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.running[machine.ID]
	switch {
	case n == nil:
		if !i.tasks.begin() {
			return nil
		}
		n = i.add(machine)
		i.running[machine.ID] = n
		go i.work(n)
	case !n.begun && n.readers > 0:
	case n.next == nil || n.next.readers == 0:
		n.next = i.add(machine)
		n = n.next
	default:
		n = n.next
	}
	n.readers++
	return n
}

func (i *inspections) add(machine Machine) *inspection {
	n := &inspection{machine: machine, done: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(i.tasks.ctx)
	return n
}

// leave removes a reader of n. An inspection without readers ends.
func (i *inspections) leave(n *inspection) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n.readers--; n.readers == 0 {
		n.cancel()
	}
}

// work runs n, and then the inspections that follow it.
func (i *inspections) work(n *inspection) {
	defer i.tasks.end()
	for n != nil {
		n.status, n.err = i.run(n)
		n.cancel()
		i.mu.Lock()
		close(n.done)
		if n.next != nil {
			i.running[n.machine.ID] = n.next
		} else {
			delete(i.running, n.machine.ID)
		}
		n = n.next
		i.mu.Unlock()
	}
}

func (i *inspections) run(n *inspection) (st Status, err error) {
	defer func() {
		if p := recover(); p != nil {
			i.log.Error("panic while inspecting", "vm", n.machine.ID, "panic", p, "stack", string(debug.Stack()))
			err = internalError()
		}
	}()
	release, err := i.slot(n.ctx)
	if err != nil {
		return Status{}, err
	}
	defer release()
	i.mu.Lock()
	n.begun = true
	i.mu.Unlock()
	ctx, cancel := context.WithTimeout(n.ctx, inspectTimeout)
	defer cancel()
	return i.driver.Inspect(ctx, n.machine)
}

// slot waits for a slot and returns the function that releases it. The slot is
// released after slowAfter at the latest.
func (i *inspections) slot(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case i.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	once := sync.OnceFunc(func() { <-i.slots })
	timer := time.AfterFunc(slowAfter, once)
	return func() { timer.Stop(); once() }, nil
}
