package vm

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// watchEvery is how often the machines' power states are read while there
	// are listeners.
	watchEvery = time.Second

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
}

// run reads the power states of all machines until ctx ends. It skips a machine
// whose last inspection has not ended.
func (w *powerWatch) run(ctx context.Context) {
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
