package vm

import (
	"context"
	"maps"
	"sync"
)

// Unknown is the status of a machine that cannot be read, and the phase of one
// whose record cannot.
const Unknown = "unknown"

// Standing is where a machine stands. An empty Status is that of a machine
// that does not exist yet.
type Standing struct {
	Phase  Phase
	Status Power
}

// censusTimeout is how long a count may take: listTimeout, and a little for the
// disk that the records are on. What is not counted by then is unknown.
const censusTimeout = listTimeout + listTimeout/4

// census is one count of the machines.
type census struct {
	done chan struct{}

	mu   sync.Mutex // guards what follows
	seen map[Standing]int
	left int // not counted yet
}

// Census counts the machines by where they stand. It comes back soon though
// the hypervisor hangs; counts that are asked for at once are one.
func (m *Manager) Census(ctx context.Context) (map[Standing]int, error) {
	c, err := m.startCensus()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, censusTimeout)
	defer cancel()
	select {
	case <-c.done:
	case <-limited.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := maps.Clone(c.seen)
	if c.left > 0 {
		seen[Standing{Unknown, Unknown}] += c.left
	}
	return seen, nil
}

// startCensus begins to count, or joins who does.
func (m *Manager) startCensus() (*census, error) {
	ids, _, err := m.store.ids()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.stopping:
		return nil, shuttingDown()
	case m.count != nil:
		return m.count, nil
	}
	c := &census{done: make(chan struct{}), seen: make(map[Standing]int), left: len(ids)}
	m.count = c
	m.wg.Go(func() {
		m.take(c, ids)
		m.mu.Lock()
		m.count = nil
		m.mu.Unlock()
		close(c.done)
	})
	return c, nil
}

func (m *Manager) take(c *census, ids []string) {
	m.entries(m.ctx, ids, func(_ int, v *VM) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.left--
		if v != nil {
			c.seen[v.standing()]++
		}
	})
}

func (v *VM) standing() Standing {
	switch {
	case v.Phase == "":
		return Standing{Unknown, Unknown}
	case v.Error != nil && v.Error.Code == CodeOpen:
		return Standing{v.Phase, Unknown}
	default:
		return Standing{v.Phase, v.Status}
	}
}
