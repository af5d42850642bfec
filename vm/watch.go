package vm

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// watchEvery is how often the machines' power states are read while there
	// are listeners.
	watchEvery = time.Second

	// watchHinted is how often the states are read if the driver reports changes.
	watchHinted = 15 * time.Second

	// watchTimeout bounds the inspection of one machine, so that one that hangs
	// is asked again.
	watchTimeout = 3 * time.Second
)

// powerWatch publishes power states that change without a job: a guest powers
// itself off, or an operator suspends it. Hypervisors do not report that, and
// power states are never stored, so they have to be read again and again.
type powerWatch struct {
	store       *store
	inspections *inspections
	events      *eventLog
	listings    *listings // nil if the driver reads machines one by one
	driver      Driver
}

// run reads the power states of all machines until ctx ends. It skips a machine
// whose last inspection has not ended.
func (w *powerWatch) run(ctx context.Context) {
	if w.listings != nil {
		w.runListed(ctx)
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	var busy sync.Map
	for {
		for _, id := range w.events.withPower() {
			if _, is := busy.LoadOrStore(id, true); is {
				continue
			}
			running.Go(func() {
				defer busy.Delete(id)
				w.inspect(ctx, id)
			})
		}
		if !sleep(ctx, watchEvery) {
			return
		}
	}
}

// runListed is run with a driver that lists machines: it reads a list after each
// change that the driver reports, and now and then.
func (w *powerWatch) runListed(ctx context.Context) {
	var watching atomic.Bool
	hints := make(chan struct{}, 1)
	hint := func() {
		select {
		case hints <- struct{}{}:
		default: // the next list shows this change too
		}
	}
	var running sync.WaitGroup
	defer running.Wait()
	if d, ok := w.driver.(Watcher); ok {
		running.Go(func() {
			for more := true; more; more = sleep(ctx, watchHinted) {
				watching.Store(true)
				err := d.Watch(ctx, hint)
				watching.Store(false)
				hint() // what changed meanwhile
				if ctx.Err() == nil {
					w.listings.log.Warn("changes of machines are not reported; reading them every second", "err", err)
				}
			}
		})
	}
	for {
		w.list(ctx)
		if !sleep(ctx, watchEvery) {
			return
		}
		if !watching.Load() {
			continue
		}
		select {
		case <-hints:
		case <-time.After(watchHinted):
		case <-ctx.Done():
			return
		}
	}
}

// list publishes the power states of all machines.
func (w *powerWatch) list(ctx context.Context) {
	var machines []Machine
	for _, id := range w.events.withPower() {
		if r, err := w.store.get(id); err == nil {
			machines = append(machines, w.store.machine(r))
		}
	}
	statuses, err := w.listings.read(ctx, machines)
	if err != nil {
		return
	}
	for id, st := range statuses {
		w.events.setStatus(id, st)
	}
}

func (w *powerWatch) inspect(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	r, err := w.store.get(id)
	if err != nil {
		return
	}
	if st, err := w.inspections.read(ctx, w.store.machine(r)); err == nil {
		w.events.setStatus(id, st)
	}
}

// withPower returns the machines that may have a power state.
func (l *eventLog) withPower() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Keys(l.seen)), func(id string) bool {
		switch l.seen[id].phase {
		case Accepted, Downloading, Unpacking, Cloning:
			return true
		}
		return false
	})
}
