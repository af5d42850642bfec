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
	// newsKept is how many events a listener may be behind: the rest is
	// forgotten. It is some minutes of a busy host's news.
	newsKept = 1024

	// listenersAtOnce bounds those who listen: each holds a connection.
	listenersAtOnce = 64

	// progressEvery is how often the progress of one machine is news.
	progressEvery = time.Second
)

// ErrSlow is the end of a Listener that did not read fast enough: what it was
// to read next is forgotten.
var ErrSlow = errors.New("the listener is too slow: news it has not read is forgotten")

// Event is a piece of news: what a machine is at now, or that it is gone.
type Event struct {
	Number   int64     `json:"-"` // one more than that of the event before
	Gone     bool      `json:"-"` // the machine is destroyed; only ID and At are set
	ID       string    `json:"id"`
	Phase    Phase     `json:"phase"`
	Status   Power     `json:"status"`
	Progress *Progress `json:"progress,omitempty"`
	At       time.Time `json:"at"`
}

// feed tells those who listen what becomes of the machines. Its history is
// every listener's queue, so one that stands still costs nothing, and is cut
// off once it has fallen out of it.
type feed struct {
	run string // of this Manager; it marks the numbers of events

	mu      sync.Mutex
	history [newsKept]Event // event n is at n % newsKept
	last    int64           // number of the latest event; the first has 1
	changed chan struct{}   // closed at the next event
	told    map[string]*told
	listens int
}

// told is what was last said of a machine. Nobody is answered from it: it is
// there to find out what is news. A status in it may be old, since the
// hypervisor is asked for it only while somebody listens.
type told struct {
	phase    Phase
	status   Power
	progress time.Time // of the last news of it
}

func newFeed() *feed {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // it never fails
	return &feed{run: hex.EncodeToString(b), changed: make(chan struct{}), told: make(map[string]*told)}
}

// know notes a machine that an earlier Manager left.
func (f *feed) know(id string, p Phase) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told[id] = &told{phase: p}
}

// enter tells a machine's phase, of which progress may be nil.
func (f *feed) enter(id string, p Phase, progress *Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now().UTC()
	t := f.told[id]
	switch {
	case t == nil:
		t = &told{}
		f.told[id] = t
	case t.phase != p:
	case progress == nil || now.Sub(t.progress) < progressEvery:
		return
	}
	t.phase = p
	if progress != nil {
		t.progress = now
	}
	if p == Failed {
		t.status = "" // what there was of the machine is removed
	}
	f.publish(Event{ID: id, Phase: p, Status: t.status, Progress: progress, At: now})
}

// saw tells the power state that the hypervisor was seen to give a machine. Of
// one that is gone nothing is said: the look may have begun before.
func (f *feed) saw(id string, status Power) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.told[id]
	if t == nil || t.status == status {
		return
	}
	t.status = status
	f.publish(Event{ID: id, Phase: t.phase, Status: status, At: time.Now().UTC()})
}

// gone tells that a machine is destroyed.
func (f *feed) gone(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.told, id)
	f.publish(Event{ID: id, Gone: true, At: time.Now().UTC()})
}

// publish is called with mu held.
func (f *feed) publish(e Event) {
	f.last++
	e.Number = f.last
	f.history[f.last%newsKept] = e
	close(f.changed)
	f.changed = make(chan struct{})
}

// place is where a listener begins: after the event of the given ID where all
// that came since is still known, and else now, with known false.
func (f *feed) place(after string) (next int64, known bool) {
	run, number, _ := strings.Cut(after, "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || run != f.run || n < 0 || n > f.last || n+newsKept < f.last {
		return f.last + 1, false
	}
	return n + 1, true
}

// Listener hears the news, from where it began to listen.
type Listener struct {
	// Known is set where the listener goes on after the event that it named.
	Known bool

	vms   *Manager
	next  int64 // number of the event that it reads next
	close sync.Once
}

// Listen begins to listen: after the event of the given ID, as EventID makes
// them, where all that came since is still known, and else with what comes
// from now on. Whoever listens calls Close.
func (m *Manager) Listen(after string) (*Listener, error) {
	f := m.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listens == listenersAtOnce {
		return nil, &Error{Code: CodeBusy, Message: fmt.Sprintf("%d listen already, which is as many as can; end one, or try again later", listenersAtOnce)}
	}
	if f.listens == 0 && !m.watch() {
		return nil, shuttingDown()
	}
	f.listens++
	l := &Listener{vms: m}
	l.next, l.Known = f.place(after)
	return l, nil
}

// Close ends the listening. It may be called again.
func (l *Listener) Close() {
	l.close.Do(func() {
		f := l.vms.feed
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.listens--; f.listens == 0 {
			l.vms.unwatch()
		}
	})
}

// EventID is the ID of the event that the listener read last, or of the one
// before the first that it will read.
func (l *Listener) EventID() string { return fmt.Sprintf("%s-%d", l.vms.feed.run, l.next-1) }

// Next waits for the next event. It returns ErrSlow where that is forgotten
// already, and context.Cause(ctx) or the Manager's reason once either ends.
func (l *Listener) Next(ctx context.Context) (Event, error) {
	f := l.vms.feed
	for {
		f.mu.Lock()
		e, last, changed := f.history[l.next%newsKept], f.last, f.changed
		f.mu.Unlock()
		switch {
		case l.next+newsKept <= last:
			return Event{}, ErrSlow
		case l.next <= last:
			l.next++
			return e, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		case <-l.vms.ctx.Done():
			return Event{}, context.Cause(l.vms.ctx)
		}
	}
}
