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

	mu      sync.Mutex             // guards what follows
	running map[string]*inspection // by machine: those that wait or run
	waiting []*inspection          // for a worker
	workers int                    // goroutines that inspect, without those whose inspection is slow
}

// inspection is one call of Driver.Inspect with its readers. Fields without
// another comment are guarded by inspections.mu.
type inspection struct {
	machine   Machine
	ctx       context.Context // ends when no reader waits any more
	cancel    context.CancelFunc
	readers   int         // those that wait
	receivers []receiver  // of all readers, also of those that have left
	begun     bool        // the driver has been called
	next      *inspection // for readers that came after that
}

// receiver gets the result of an inspection. The channel has room for it.
type receiver struct {
	results chan<- inspected
	index   int
}

// inspected is the result of an inspection for one of its readers.
type inspected struct {
	index  int // of the machine among those that the reader asked for
	status Status
	err    error
}

func newInspections(d Driver, log *slog.Logger, t *tasks) *inspections {
	return &inspections{driver: d, log: log, tasks: t, running: make(map[string]*inspection)}
}

// read returns the machine's live state, or an *Error of CodeOpen if the
// hypervisor has not returned it before ctx ends.
func (i *inspections) read(ctx context.Context, machine Machine) (st Status, err error) {
	i.each(ctx, []Machine{machine}, func(r inspected) { st, err = r.status, r.err })
	return st, err
}

// each is read for several machines. It calls f with each result as soon as it
// is known.
func (i *inspections) each(ctx context.Context, machines []Machine, f func(inspected)) {
	results := make(chan inspected, len(machines))
	joined := make([]*inspection, len(machines)) // without those whose result is known
	defer func() { i.leave(joined) }()
	for index, machine := range machines {
		if joined[index] = i.join(machine, receiver{results, index}); joined[index] == nil {
			results <- inspected{index: index, err: shuttingDown()}
		}
	}
	for range machines {
		r, ok := receive(ctx, results)
		if !ok {
			break
		}
		joined[r.index] = nil
		f(r)
	}
	for index, n := range joined {
		if n != nil {
			f(inspected{index: index, err: &Error{
				Code:    CodeOpen,
				Message: fmt.Sprintf("the hypervisor has not returned the state of machine %s in time; GET /vms/%s waits for it up to %v", n.machine.ID, n.machine.ID, inspectTimeout),
				Err:     context.Cause(ctx),
			}})
		}
	}
}

// receive returns the next result, or false if there is none when ctx has ended.
func receive(ctx context.Context, results <-chan inspected) (r inspected, ok bool) {
	select {
	case r = <-results:
		return r, true
	case <-ctx.Done():
	}
	select {
	case r = <-results:
		return r, true
	default:
		return r, false
	}
}

// join makes the caller a reader of the machine's next inspection. It returns
// nil if the Manager stops.
func (i *inspections) join(machine Machine, to receiver) *inspection {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.running[machine.ID]
	switch {
	case n == nil:
		if !i.tasks.begin() {
			return nil
		}
		n = i.add(machine)
		i.enqueue(n)
	case !n.begun && n.readers > 0:
	case n.next == nil || n.next.readers == 0:
		n.next = i.add(machine)
		n = n.next
	default:
		n = n.next
	}
	n.readers++
	n.receivers = append(n.receivers, to)
	return n
}

func (i *inspections) add(machine Machine) *inspection {
	n := &inspection{machine: machine}
	n.ctx, n.cancel = context.WithCancel(i.tasks.ctx)
	return n
}

// leave removes a reader of each inspection that is not nil. One without readers
// ends.
func (i *inspections) leave(joined []*inspection) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, n := range joined {
		if n == nil {
			continue
		}
		if n.readers--; n.readers == 0 {
			n.cancel()
		}
	}
}

// enqueue lets a worker run n. The caller holds i.mu.
func (i *inspections) enqueue(n *inspection) {
	i.running[n.machine.ID] = n
	i.waiting = append(i.waiting, n)
	i.addWorker()
}

// addWorker starts a worker if one more is needed and allowed. The caller holds
// i.mu.
func (i *inspections) addWorker() {
	if len(i.waiting) > 0 && i.workers < inspectsAtOnce {
		i.workers++
		go i.work()
	}
}

// work runs inspections until none waits. After a slow one, which others do not
// wait for, it ends.
func (i *inspections) work() {
	for n := i.take(); n != nil; n = i.take() {
		slow := time.AfterFunc(slowAfter, func() {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.workers--
			i.addWorker()
		})
		st, err := i.run(n)
		counted := slow.Stop()
		i.finish(n, st, err)
		if !counted {
			return
		}
	}
}

// take returns the next inspection. If there is none, the worker counts no more.
func (i *inspections) take() *inspection {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.waiting) == 0 {
		i.waiting = nil
		i.workers--
		return nil
	}
	n := i.waiting[0]
	i.waiting = i.waiting[1:]
	n.begun = true
	return n
}

// finish tells the readers of n its result, and lets the inspection after it run.
func (i *inspections) finish(n *inspection, st Status, err error) {
	n.cancel()
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, to := range n.receivers {
		to.results <- inspected{to.index, st, err}
	}
	if n.next != nil {
		i.enqueue(n.next)
		return
	}
	delete(i.running, n.machine.ID)
	i.tasks.end()
}

func (i *inspections) run(n *inspection) (st Status, err error) {
	defer func() {
		if p := recover(); p != nil {
			i.log.Error("panic while inspecting", "vm", n.machine.ID, "panic", p, "stack", string(debug.Stack()))
			err = internalError()
		}
	}()
	if err := n.ctx.Err(); err != nil {
		return Status{}, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, inspectTimeout)
	defer cancel()
	return i.driver.Inspect(ctx, n.machine)
}
