package vm

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"osx-builder/image"
)

// The causes with which a job is cancelled. Neither is a failure of the machine.
var (
	errStopping   = errors.New("the daemon is stopping")
	errDestroying = errors.New("the machine is being destroyed")
)

// jobs knows the job of each machine that has one.
type jobs struct {
	tasks  *tasks
	log    *slog.Logger
	events *eventLog
	hooks  Hooks

	mu   sync.Mutex
	byID map[string]*job // guarded by mu
}

// start gives a machine a job. If the machine has one already, start returns
// that, and isNew is false. After tasks.close it returns nil.
func (s *jobs) start(id string, destroys bool, run func(context.Context, *job)) (j *job, isNew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.byID[id]; j != nil {
		return j, false
	}
	ctx, cancel := context.WithCancelCause(s.tasks.ctx)
	j = &job{
		destroys: destroys, cancel: cancel, phase: Accepted, since: time.Now(),
		phaseEnded: s.hooks.PhaseEnded,
		publish:    func(p Phase, done *Progress) { s.events.setPhase(id, p, done) },
		settled:    make(chan struct{}), destroyed: make(chan struct{}), done: make(chan struct{}),
	}
	s.byID[id] = j
	if !s.tasks.run(func() {
		defer s.end(id, j)
		run(ctx, j)
	}) {
		cancel(nil)
		delete(s.byID, id)
		return nil, false
	}
	return j, true
}

// end ends a job. A panic that got here did not come from a creation, which
// catches its own: the machine keeps its record and the daemon goes on.
func (s *jobs) end(id string, j *job) {
	if p := recover(); p != nil {
		s.log.Error("panic in a machine's job", "vm", id, "panic", p, "stack", string(debug.Stack()))
		j.setDestroyed(internalError())
	}
	s.mu.Lock()
	delete(s.byID, id)
	s.mu.Unlock()
	j.cancel(nil)
	j.settle()
	j.setDestroyed(shuttingDown())
	close(j.done)
}

// get returns a machine's job, or nil.
func (s *jobs) get(id string) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// job is the one goroutine that changes a machine.
type job struct {
	destroys  bool // it destroys the machine; otherwise it creates it
	cancel    context.CancelCauseFunc
	settled   chan struct{} // closed once the record says how the creation ended, or the job has ended
	destroyed chan struct{} // closed once a destruction has succeeded, or failed with err
	done      chan struct{} // closed once the job has ended
	err       error         // of the destruction

	publish    func(Phase, *Progress)
	phaseEnded func(Phase, time.Duration)

	mu       sync.Mutex // guards what follows
	phase    Phase
	progress *Progress
	since    time.Time // when phase began

	settleOnce, destroyedOnce sync.Once
}

// changesMachine reports whether the job changes the machine. A settled job
// that does not destroy only sends callbacks.
func (j *job) changesMachine() bool {
	select {
	case <-j.settled:
		return j.destroys
	default:
		return true
	}
}

func (j *job) settle() { j.settleOnce.Do(func() { close(j.settled) }) }

// setDestroyed says how the destruction ended. Only the first call counts.
func (j *job) setDestroyed(err error) {
	j.destroyedOnce.Do(func() {
		j.err = err
		close(j.destroyed)
	})
}

// result returns whether the destruction has ended, and how. After one that
// succeeded only callbacks are left.
func (j *job) result() (ended bool, err error) {
	select {
	case <-j.destroyed:
		return true, j.err
	default:
		return false, nil
	}
}

// waitDestroyed waits for the end of the destruction.
func (j *job) waitDestroyed(ctx context.Context) error {
	select {
	case <-j.destroyed:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setPhase notes the phase and its progress, publishes both, and reports how
// long the phase before took. A download without progress did not take place.
func (j *job) setPhase(p Phase, progress *Progress) {
	now := time.Now()
	j.mu.Lock()
	before, took := j.phase, now.Sub(j.since)
	ended := p != before && (before != Downloading || j.progress != nil)
	if p != before {
		j.since = now
	}
	j.phase, j.progress = p, progress
	j.mu.Unlock()
	j.publish(p, progress)
	if ended {
		j.phaseEnded(before, took)
	}
}

// endPhase reports how long the last phase took.
func (j *job) endPhase() {
	j.mu.Lock()
	p, took := j.phase, time.Since(j.since)
	j.mu.Unlock()
	j.phaseEnded(p, took)
}

// setImageProgress sets the phase to what the image cache reports.
func (j *job) setImageProgress(p image.Progress) {
	phase := Downloading
	if p.Stage == image.Unpacking {
		phase = Unpacking
	}
	j.setPhase(phase, imageProgress(p))
}

// imageProgress is how the API shows what the image cache reports.
func imageProgress(p image.Progress) *Progress {
	progress := &Progress{Bytes: p.Bytes}
	if p.Total >= 0 {
		progress.Total = &p.Total
	}
	return progress
}

func (j *job) current() (Phase, *Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.phase, j.progress
}
