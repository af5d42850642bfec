package vm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// powerTimeout bounds one action. A hypervisor that is well takes a second.
const powerTimeout = 2 * time.Minute

// Actions lists every Action.
func Actions() []Action {
	return []Action{ActionOn, ActionOff, ActionShutdown, ActionReset, ActionSuspend, ActionResume}
}

// targetState returns the state that an action leads to, "" if it leads to none.
// In that state the action does nothing, so that a client without an answer can
// ask for it again.
func targetState(a Action) Power {
	switch a {
	case ActionOn, ActionResume:
		return PoweredOn
	case ActionOff, ActionShutdown:
		return PoweredOff
	case ActionSuspend:
		return Suspended
	}
	return ""
}

// allowedActions lists what can be done to a machine in a state.
func allowedActions(p Power) []Action {
	switch p {
	case PoweredOff:
		return []Action{ActionOn}
	case PoweredOn:
		return []Action{ActionOff, ActionShutdown, ActionReset, ActionSuspend}
	case Suspended:
		return []Action{ActionResume, ActionOff}
	case Paused:
		return []Action{ActionResume, ActionReset, ActionOff}
	case Blocked:
		return []Action{ActionReset, ActionOff}
	case PoweringOn, PoweringOff, Suspending, Resetting:
		return []Action{ActionOff}
	}
	return nil
}

// Power does an action to a machine's power and returns the machine. The action
// continues when ctx ends. Power waits for another action on the machine, but
// not for its creation or destruction.
func (m *Manager) Power(ctx context.Context, id string, a Action) (VM, error) {
	r, err := m.store.get(id)
	if err != nil {
		return VM{}, err
	}
	d, ok := m.opts.Driver.(Powerer)
	if !ok {
		return VM{}, notSupported(m.opts.Hypervisor, "power actions")
	}
	if j := m.jobs.get(id); j != nil && !j.destroys && r.settled() {
		select {
		case <-j.settled: // at once: the client has read the record that the job is still syncing
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
	}
	for {
		o, isNew, err := m.power.start(id, func(ctx context.Context) error { return m.power.apply(ctx, d, id, a) })
		if err != nil {
			return VM{}, err
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
		switch {
		case isNew && o.err != nil:
			return VM{}, o.err
		case isNew:
			return m.Get(ctx, id)
		}
	}
}

// notAllowed is the error for an action that the machine's state does not allow.
func notAllowed(id string, p Power, a Action) error {
	if p == "" {
		return &Error{Code: CodePower, Message: fmt.Sprintf("machine %s does not exist on the hypervisor, so the action %s is not possible", id, a)}
	}
	var words []string
	for _, a := range allowedActions(p) {
		words = append(words, string(a))
	}
	return &Error{
		Code:    CodePower,
		Message: fmt.Sprintf("machine %s is %s, which does not allow %s; it allows %s", id, p, a, strings.Join(words, ", ")),
	}
}

func beingDestroyed(id string) error {
	return &Error{Code: CodeDestroying, Message: fmt.Sprintf("machine %s is being destroyed, so its power cannot be changed", id)}
}

// powerOperations knows the power action that runs on each machine. While one
// runs it is the one goroutine that changes the machine, as its job is before
// and after.
type powerOperations struct {
	tasks  *tasks
	jobs   *jobs
	store  *store
	driver Driver
	reader *reader
	events *eventLog
	log    *slog.Logger

	mu   sync.Mutex // taken before that of jobs
	byID map[string]*powerOperation
}

// powerOperation is a power action that runs.
type powerOperation struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed once it has ended with err
	err    error
}

// start begins an action. If another one runs on the machine, start returns
// that, and isNew is false.
func (p *powerOperations) start(id string, run func(context.Context) error) (o *powerOperation, isNew bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.byID[id]; o != nil {
		return o, false, nil
	}
	if j := p.jobs.get(id); j != nil && j.changesMachine() {
		if j.destroys {
			return nil, false, beingDestroyed(id)
		}
		return nil, false, &Error{Code: CodePower, Message: fmt.Sprintf("machine %s is being created; its power can be changed once it is ready: GET /vms/%s?wait=10m", id, id)}
	}
	ctx, cancel := context.WithCancelCause(p.tasks.ctx)
	o = &powerOperation{cancel: cancel, done: make(chan struct{})}
	p.byID[id] = o
	if !p.tasks.run(func() {
		defer p.end(id, o)
		ctx, stop := context.WithTimeout(ctx, powerTimeout)
		defer stop()
		o.err = run(ctx)
	}) {
		cancel(nil)
		delete(p.byID, id)
		return nil, false, shuttingDown()
	}
	return o, true, nil
}

func (p *powerOperations) end(id string, o *powerOperation) {
	if r := recover(); r != nil {
		p.log.Error("panic in a power action", "vm", id, "panic", r, "stack", string(debug.Stack()))
		o.err = internalError()
	}
	p.mu.Lock()
	delete(p.byID, id)
	p.mu.Unlock()
	o.cancel(nil)
	close(o.done)
}

// stop ends the power action that runs on a machine, if there is one. The caller
// is the machine's job, so no other one begins.
func (p *powerOperations) stop(id string) {
	p.mu.Lock()
	o := p.byID[id]
	p.mu.Unlock()
	if o != nil {
		o.cancel(errDestroying)
		<-o.done
	}
}

// apply does the action if the machine's state allows it. It reads the record
// itself: a destruction may have ended since the request came, or have failed.
func (p *powerOperations) apply(ctx context.Context, d Powerer, id string, a Action) error {
	r, err := p.store.get(id)
	if err != nil {
		return err
	}
	if r.Phase == Destroying {
		return beingDestroyed(id)
	}
	st, err := p.reader.inspect(ctx, r)
	if err != nil {
		return p.actionError(ctx, id, a, err)
	}
	p.events.setStatus(id, st)
	switch {
	case st.Power != "" && st.Power == targetState(a):
		return nil
	case !slices.Contains(allowedActions(st.Power), a):
		return notAllowed(id, st.Power, a)
	}
	started := time.Now()
	if a == ActionOn {
		err = p.driver.Start(ctx, p.store.machine(r))
	} else {
		err = d.Power(ctx, p.store.machine(r), a)
	}
	if err != nil {
		err = p.actionError(ctx, id, a, err)
		p.log.Error("power action failed", "vm", id, "action", a, "err", err)
		return err
	}
	p.log.Info("power action", "vm", id, "action", a, "took", time.Since(started).Round(time.Millisecond))
	if st, err := p.reader.inspect(ctx, r); err == nil {
		p.events.setStatus(id, st)
	}
	return nil
}

func (p *powerOperations) actionError(ctx context.Context, id string, a Action, err error) error {
	switch known := asError(err); {
	case p.tasks.ctx.Err() != nil:
		return shuttingDown()
	case errors.Is(context.Cause(ctx), errDestroying):
		return &Error{Code: CodeDestroying, Message: fmt.Sprintf("machine %s was destroyed before the action %s was done", id, a)}
	case known != nil:
		return known
	}
	return &Error{Code: CodeHypervisor, Message: fmt.Sprintf("the action %s on machine %s failed: %v; GET /vms/%s shows its state", a, id, err, id), Err: err}
}
