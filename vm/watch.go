package vm

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// watchEvery is how often the machines' power states are read while
	// somebody listens.
	watchEvery = time.Second

	// watchTimeout bounds a look at one machine, so that one which hangs does
	// not hold up the news of the others.
	watchTimeout = 3 * time.Second
)

// watch begins to read the machines' power states, which change without a job
// of ours: a guest powers itself off, an operator suspends it. Nobody tells the
// daemon, and what is running is never stored, so it has to look; it does so
// only while somebody listens. It is called with the feed's lock held, and
// tells whether it could.
func (m *Manager) watch() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return false
	}
	ctx, cancel := context.WithCancel(m.ctx)
	m.unwatch = cancel
	m.wg.Go(func() { m.lookAround(ctx) })
	return true
}

// lookAround looks at all machines again and again until ctx ends. A machine
// at which the last look has not ended is passed over.
func (m *Manager) lookAround(ctx context.Context) {
	var looks sync.WaitGroup
	defer looks.Wait()
	var busy sync.Map
	for {
		for _, id := range m.feed.watched() {
			if _, is := busy.LoadOrStore(id, true); is {
				continue
			}
			looks.Go(func() {
				defer busy.Delete(id)
				m.look(ctx, id)
			})
		}
		if !pause(ctx, watchEvery) {
			return
		}
	}
}

// watched are the machines that may have a power state.
func (f *feed) watched() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Keys(f.told)), func(id string) bool {
		switch f.told[id].phase {
		case Accepted, Downloading, Unpacking, Cloning:
			return true
		}
		return false
	})
}

func (m *Manager) look(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	r, err := m.record(id)
	if err != nil {
		return
	}
	if st, err := m.inspections.read(ctx, m.machine(r)); err == nil {
		m.feed.saw(id, st.Power)
	}
}
