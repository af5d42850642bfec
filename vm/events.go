package vm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// eventsKept is how many events a listener may be behind at least: older ones
	// are dropped. A busy host produces that many in some minutes. With many
	// machines there are more, since all of them can change at once.
	eventsKept = 1024

	// listenersAtOnce bounds the listeners: each holds a connection.
	listenersAtOnce = 64

	// progressEvery is the time between two events about the progress of one
	// machine.
	progressEvery = time.Second
)

// ErrSlow is the end of a reader that did not read fast enough: what it was to
// read next is not kept any more.
var ErrSlow = errors.New("the reader is too slow: what it was to read next is not kept any more")

// Event says what changed: a machine's phase, progress or power state, or that
// the machine does not exist any more.
type Event struct {
	Number   int64     `json:"-"` // one more than that of the event before
	Gone     bool      `json:"-"` // the machine is destroyed; only ID and At are set
	ID       string    `json:"id"`
	Phase    Phase     `json:"phase"`
	Status   Power     `json:"status"`
	Progress *Progress `json:"progress,omitempty"`
	At       time.Time `json:"at"`

	StoppedBecause string `json:"stopped_because,omitempty"` // in the event that shows the machine off

	owner string // of the machine
}

// eventLog keeps the latest events for its listeners. The log is every
// listener's queue: one that does not read costs nothing, and ends once its
// next event is dropped.
type eventLog struct {
	run   string // of this Manager; part of the IDs of its events
	tasks *tasks
	watch func(context.Context) // called while there are listeners

	mu        sync.Mutex    // guards what follows
	events    []Event       // event n is at n % len(events)
	last      int64         // number of the latest event; the first has 1
	changed   chan struct{} // closed by the next event
	seen      map[string]*lastSeen
	listeners int
	stopWatch context.CancelFunc
}

// lastSeen is what the latest event said of a machine. It only serves to find
// out what changed. Its status may be old, because the hypervisor is asked for
// it only while there are listeners.
type lastSeen struct {
	owner    string
	phase    Phase
	status   Power
	progress time.Time // of the latest event about it
}

func newEventLog(t *tasks) *eventLog {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // it never fails
	return &eventLog{run: hex.EncodeToString(b), tasks: t, events: make([]Event, eventsKept), changed: make(chan struct{}), seen: make(map[string]*lastSeen)}
}

// kept returns how many events are kept. It needs mu held.
func (l *eventLog) kept() int64 { return int64(len(l.events)) }

// at returns the place of event n. It needs mu held.
func (l *eventLog) at(n int64) *Event { return &l.events[n%l.kept()] }

// grow makes room for two events of each machine. It needs mu held.
func (l *eventLog) grow() {
	if 2*len(l.seen) <= len(l.events) {
		return
	}
	old := l.events
	l.events = make([]Event, 2*len(old))
	for i := range min(l.last, int64(len(old))) {
		n := l.last - i
		*l.at(n) = old[n%int64(len(old))]
	}
}

// restore adds a machine that an earlier Manager left, without an event.
func (l *eventLog) restore(id, owner string, p Phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[id] = &lastSeen{owner: owner, phase: p}
	l.grow()
}

// add publishes that a machine is accepted.
func (l *eventLog) add(id, owner string) {
	l.restore(id, owner, "")
	l.setPhase(id, Accepted, nil)
}

// setPhase publishes a machine's phase and its progress, which may be nil.
func (l *eventLog) setPhase(id string, p Phase, progress *Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now().UTC()
	s := l.seen[id]
	switch {
	case s == nil:
		s = &lastSeen{}
		l.seen[id] = s
	case s.phase != p:
	case progress == nil || now.Sub(s.progress) < progressEvery:
		return
	}
	s.phase = p
	if progress != nil {
		s.progress = now
	}
	if p == Failed {
		s.status = "" // the hypervisor has no such machine any more
	}
	l.publish(Event{ID: id, Phase: p, Status: s.status, Progress: progress, At: now, owner: s.owner})
}

// setStatus publishes a machine's power state if it changed. It ignores a
// machine that does not exist any more: the inspection may have begun before.
func (l *eventLog) setStatus(id string, st Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen[id]
	if s == nil || s.status == st.Power {
		return
	}
	s.status = st.Power
	l.publish(Event{ID: id, Phase: s.phase, Status: st.Power, StoppedBecause: st.StoppedBecause, At: time.Now().UTC(), owner: s.owner})
}

// remove publishes that a machine is destroyed.
func (l *eventLog) remove(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := Event{ID: id, Gone: true, At: time.Now().UTC()}
	if s := l.seen[id]; s != nil {
		e.owner = s.owner
	}
	delete(l.seen, id)
	l.publish(e)
}

// publish needs mu held.
func (l *eventLog) publish(e Event) {
	l.last++
	e.Number = l.last
	*l.at(l.last) = e
	close(l.changed)
	l.changed = make(chan struct{})
}

// after returns the number of the event that follows the one with the given ID,
// if all events since are kept. Otherwise it returns the number of the next
// event, and known is false. It needs mu held.
func (l *eventLog) after(eventID string) (next int64, known bool) {
	run, number, _ := strings.Cut(eventID, "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || run != l.run || n < 0 || n > l.last || n+l.kept() < l.last {
		return l.last + 1, false
	}
	return n + 1, true
}

// Listener reads events in their order.
type Listener struct {
	// Known reports whether the listener continues after the event that it
	// named.
	Known bool

	log    *eventLog
	owners Owners // whose machines' events it reads
	next   int64  // number of the event that it reads next
	close  sync.Once
}

// Listen begins to read events of the owners' machines after the one with the
// given ID, which is a result of EventID. If events since are not kept any more, it begins with the
// next event. The caller calls Close.
func (m *Manager) Listen(after string, o Owners) (*Listener, error) {
	l := m.events
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listeners == listenersAtOnce {
		return nil, &Error{Code: CodeBusy, Message: fmt.Sprintf("%d clients read the events, which is the limit; end one or try again later", listenersAtOnce)}
	}
	if l.listeners == 0 {
		ctx, cancel := context.WithCancel(l.tasks.ctx)
		if !l.tasks.run(func() { l.watch(ctx) }) {
			cancel()
			return nil, shuttingDown()
		}
		l.stopWatch = cancel
	}
	l.listeners++
	r := &Listener{log: l, owners: o}
	r.next, r.Known = l.after(after)
	return r, nil
}

// Close ends the listener. It may be called again.
func (r *Listener) Close() {
	r.close.Do(func() {
		l := r.log
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.listeners--; l.listeners == 0 {
			l.stopWatch()
		}
	})
}

// EventID returns the ID of the event that the listener read last, or of the one
// before the first that it reads.
func (r *Listener) EventID() string { return fmt.Sprintf("%s-%d", r.log.run, r.next-1) }

// Next waits for the next event. It returns ErrSlow if that is not kept any
// more, and the cause once ctx ends or the Manager is closed.
func (r *Listener) Next(ctx context.Context) (Event, error) {
	l := r.log
	for {
		l.mu.Lock()
		e, last, kept, changed := *l.at(r.next), l.last, l.kept(), l.changed
		l.mu.Unlock()
		switch {
		case r.next+kept <= last:
			return Event{}, ErrSlow
		case r.next <= last:
			r.next++
			if !r.owners.include(e.owner) {
				continue
			}
			return e, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		case <-l.tasks.ctx.Done():
			return Event{}, context.Cause(l.tasks.ctx)
		}
	}
}
