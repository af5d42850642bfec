package vm

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"osx-builder/image"
)

// Why a job is cancelled. Neither is a failure of the machine.
var (
	errStopping   = errors.New("the daemon is stopping")
	errDestroying = errors.New("the machine is being destroyed")
)

// job is the one goroutine that changes a machine.
type job struct {
	destroys bool // it takes the machine away; else it makes it
	tell     func(Phase, *Progress)
	cancel   context.CancelCauseFunc
	settled  chan struct{} // closed once the record says how the making ended, or the job has ended
	gone     chan struct{} // closed once a destruction has succeeded or failed with err
	done     chan struct{} // closed when the job has ended
	err      error         // of the destruction

	passed func(Phase, time.Duration) // Hooks.Passed

	mu       sync.Mutex // guards what follows
	phase    Phase
	progress *Progress
	since    time.Time // when phase began

	settleOnce, goneOnce sync.Once
}

// start gives a machine a job. Where it has one already, that is returned and
// mine is false; where the Manager stops, j is nil.
func (m *Manager) start(id string, destroys bool, run func(context.Context, *job)) (j *job, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping || m.jobs[id] != nil {
		return m.jobs[id], false
	}
	ctx, cancel := context.WithCancelCause(m.ctx)
	j = &job{
		destroys: destroys, cancel: cancel, phase: Accepted, since: time.Now(), passed: m.Hooks.Passed,
		tell:    func(p Phase, done *Progress) { m.feed.enter(id, p, done) },
		settled: make(chan struct{}), gone: make(chan struct{}), done: make(chan struct{}),
	}
	m.jobs[id] = j
	m.wg.Go(func() {
		defer m.finish(id, j)
		run(ctx, j)
	})
	return j, true
}

// finish ends a job. A panic that got here came from outside a creation, which
// catches its own: the machine keeps its record and the daemon goes on.
func (m *Manager) finish(id string, j *job) {
	if p := recover(); p != nil {
		m.Log.Error("panic in a machine's job", "vm", id, "panic", p, "stack", string(debug.Stack()))
		j.endDestruction(&Error{Code: CodeInternal, Message: "internal error; the daemon's log has the details"})
	}
	m.mu.Lock()
	delete(m.jobs, id)
	m.mu.Unlock()
	j.cancel(nil)
	j.settle()
	j.endDestruction(shuttingDown())
	close(j.done)
}

// job returns the job at work on a machine, or nil.
func (m *Manager) job(id string) *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.jobs[id]
}

func (j *job) settle() { j.settleOnce.Do(func() { close(j.settled) }) }

// endDestruction says how the destruction ended; only the first word counts.
func (j *job) endDestruction(err error) {
	j.goneOnce.Do(func() {
		j.err = err
		close(j.gone)
	})
}

// over tells whether the destruction has ended, and how. After one that
// succeeded only callbacks are left.
func (j *job) over() (ended bool, err error) {
	select {
	case <-j.gone:
		return true, j.err
	default:
		return false, nil
	}
}

// destroyed waits for the destruction's end.
func (j *job) destroyed(ctx context.Context) error {
	select {
	case <-j.gone:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter says which step the job is at.
func (j *job) enter(p Phase) { j.move(p, nil) }

// move notes the step, and tells of the one that was passed. A download that
// reported nothing was none.
func (j *job) move(p Phase, seen *Progress) {
	now := time.Now()
	j.mu.Lock()
	was, took := j.phase, now.Sub(j.since)
	told := p != was && (was != Downloading || j.progress != nil)
	if p != was {
		j.since = now
	}
	j.phase, j.progress = p, seen
	j.mu.Unlock()
	j.tell(p, seen)
	if told {
		j.passed(was, took)
	}
}

// pass tells of the last step.
func (j *job) pass() {
	j.mu.Lock()
	was, took := j.phase, time.Since(j.since)
	j.mu.Unlock()
	j.passed(was, took)
}

// report takes the image cache's word for the step and how far it is.
func (j *job) report(p image.Progress) {
	seen := &Progress{Bytes: p.Bytes}
	if p.Total >= 0 {
		seen.Total = &p.Total
	}
	phase := Downloading
	if p.Stage == image.Unpacking {
		phase = Unpacking
	}
	j.move(phase, seen)
}

func (j *job) seen() (Phase, *Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.phase, j.progress
}

// pause waits for d, or less where ctx ends; it tells whether the time is up.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
