package vm

import (
	"context"
	"maps"
	"sync"
)

// Unknown is the status of a machine that cannot be read, and the phase of one
// whose record cannot.
const Unknown = "unknown"

// State is a machine's phase and power state. An empty Status means that the
// machine does not exist yet.
type State struct {
	Phase  Phase
	Status Power
}

// countTimeout is how long a count may take: listTimeout, and a little for the
// disk that the records are on. What is not counted by then is unknown.
const countTimeout = listTimeout + listTimeout/4

// stateCounter counts the machines in each state. Counts that are asked for at
// the same time share one run.
type stateCounter struct {
	store  *store
	tasks  *tasks
	reader *reader

	mu      sync.Mutex
	running *stateCount // nil if none is; guarded by mu
}

// stateCount is one count.
type stateCount struct {
	done chan struct{}

	mu     sync.Mutex // guards what follows
	states map[State]int
	left   int // machines that are not counted yet
}

// StateCounts returns how many machines are in each state. It returns soon even
// if the hypervisor hangs.
func (m *Manager) StateCounts(ctx context.Context) (map[State]int, error) {
	c, err := m.counter.start()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	select {
	case <-c.done:
	case <-limited.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	states := maps.Clone(c.states)
	if c.left > 0 {
		states[State{Unknown, Unknown}] += c.left
	}
	return states, nil
}

// start returns the count that runs, or a new one.
func (s *stateCounter) start() (*stateCount, error) {
	ids, err := s.store.ids()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return s.running, nil
	}
	c := &stateCount{done: make(chan struct{}), states: make(map[State]int), left: len(ids)}
	if !s.tasks.run(func() {
		s.count(c, ids)
		s.mu.Lock()
		s.running = nil
		s.mu.Unlock()
		close(c.done)
	}) {
		return nil, shuttingDown()
	}
	s.running = c
	return c, nil
}

func (s *stateCounter) count(c *stateCount, ids []string) {
	s.reader.each(s.tasks.ctx, ids, func(v *VM) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.left--
		if v != nil {
			c.states[v.state()]++
		}
	})
}

func (v *VM) state() State {
	switch {
	case v.Phase == "":
		return State{Unknown, Unknown}
	case v.Error != nil && v.Error.Code == CodeOpen:
		return State{v.Phase, Unknown}
	default:
		return State{v.Phase, v.Status}
	}
}
