package vm

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
)

// listings lists machines for readers of many machines. One list is read at a
// time, however many readers there are. A reader that comes while one is read
// gets the next one, because the first may be older than what the reader has
// seen already.
type listings struct {
	driver Lister
	log    *slog.Logger
	tasks  *tasks

	mu      sync.Mutex // guards what follows
	running *listing
	next    *listing // for readers that came after that began
}

// listing is one call of Lister.List.
type listing struct {
	machines map[string]Machine // guarded by listings.mu until the call begins

	done     chan struct{} // closed once the rest is set
	statuses map[string]Status
	err      error
}

// newListings returns nil if the driver cannot list.
func newListings(d Driver, log *slog.Logger, t *tasks) *listings {
	lister, ok := d.(Lister)
	if !ok {
		return nil
	}
	return &listings{driver: lister, log: log, tasks: t}
}

// read returns the statuses of the machines by ID, or an *Error of CodeOpen if
// the hypervisor has not returned them within inspectTimeout.
func (l *listings) read(ctx context.Context, machines []Machine) (map[string]Status, error) {
	if len(machines) == 0 {
		return nil, nil
	}
	n := l.join(machines)
	if n == nil {
		return nil, shuttingDown()
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	select {
	case <-n.done:
		return n.statuses, n.err
	case <-ctx.Done():
		return nil, &Error{
			Code: CodeOpen, Message: fmt.Sprintf("the hypervisor has not listed its machines within %v", inspectTimeout), Err: context.Cause(ctx),
		}
	}
}

// join adds machines to the next list. It returns nil if the Manager stops.
func (l *listings) join(machines []Machine) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.next
	if n == nil {
		n = &listing{machines: make(map[string]Machine), done: make(chan struct{})}
		if l.running == nil {
			if !l.tasks.begin() {
				return nil
			}
			l.running = n
			go l.work(n)
		}
		l.next = n
	}
	for _, m := range machines {
		n.machines[m.ID] = m
	}
	return n
}

// work reads n, and then the lists that follow it.
func (l *listings) work(n *listing) {
	defer l.tasks.end()
	for n != nil {
		l.mu.Lock()
		l.running, l.next = n, nil
		machines := make([]Machine, 0, len(n.machines))
		for _, m := range n.machines {
			machines = append(machines, m)
		}
		l.mu.Unlock()
		n.statuses, n.err = l.list(machines)
		close(n.done)
		l.mu.Lock()
		n = l.next
		if n == nil {
			l.running = nil
		}
		l.mu.Unlock()
	}
}

func (l *listings) list(machines []Machine) (statuses map[string]Status, err error) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("panic while listing machines", "panic", p, "stack", string(debug.Stack()))
			err = internalError()
		}
	}()
	ctx, cancel := context.WithTimeout(l.tasks.ctx, inspectTimeout)
	defer cancel()
	return l.driver.List(ctx, machines)
}
