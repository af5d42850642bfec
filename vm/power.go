package vm

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// powerTimeout bounds one action. A hypervisor that is well takes a second.
const powerTimeout = 2 * time.Minute

// Actions lists every Action.
func Actions() []Action {
	return []Action{ActionOn, ActionOff, ActionShutdown, ActionReset, ActionSuspend, ActionResume}
}

// sets is the state that an action leads to. In that state it is a no-op, so
// that it can be asked for again by whoever had no answer.
var sets = map[Action]Power{
	ActionOn: PoweredOn, ActionOff: PoweredOff, ActionShutdown: PoweredOff, ActionSuspend: Suspended, ActionResume: PoweredOn,
}

// allows lists what can be done to a machine in a state.
func allows(p Power) []Action {
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

// act is a power action at work on a machine: for its time it is the one
// goroutine that changes it, as its job is before and after.
type act struct {
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when it has ended with err
	err    error
}

// Power does an action to a machine's power and reads the machine. It goes on
// when ctx ends. Another action is waited for; what makes or destroys the
// machine is not.
func (m *Manager) Power(ctx context.Context, id string, a Action) (VM, error) {
	r, err := m.record(id)
	if err != nil {
		return VM{}, err
	}
	d, ok := m.Driver.(Powerer)
	if !ok {
		return VM{}, m.notSupported("power")
	}
	for {
		c, mine, err := m.startAct(r, func(ctx context.Context) error { return m.power(ctx, d, id, a) })
		if err != nil {
			return VM{}, err
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
		switch {
		case mine && c.err != nil:
			return VM{}, c.err
		case mine:
			return m.Get(ctx, id)
		}
	}
}

// startAct begins an action. Where there is one under way already, that is
// returned and mine is false.
func (m *Manager) startAct(r *record, run func(context.Context) error) (c *act, mine bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[r.ID]
	switch {
	case m.stopping:
		return nil, false, shuttingDown()
	case m.acts[r.ID] != nil:
		return m.acts[r.ID], false, nil
	case j != nil && j.busy() && !j.destroys:
		return nil, false, &Error{Code: CodePower, Message: fmt.Sprintf("machine %s is being made; its power can be changed once it is ready: GET /vms/%s?wait=10m", r.ID, r.ID)}
	case j != nil && j.busy():
		return nil, false, beingDestroyed(r.ID)
	}
	ctx, cancel := context.WithCancelCause(m.ctx)
	c = &act{cancel: cancel, done: make(chan struct{})}
	m.acts[r.ID] = c
	m.wg.Go(func() {
		defer m.endAct(r.ID, c)
		ctx, over := context.WithTimeout(ctx, powerTimeout)
		defer over()
		c.err = run(ctx)
	})
	return c, true, nil
}

func (m *Manager) endAct(id string, c *act) {
	if p := recover(); p != nil {
		m.Log.Error("panic in a power action", "vm", id, "panic", p, "stack", string(debug.Stack()))
		c.err = &Error{Code: CodeInternal, Message: "internal error; the daemon's log has the details"}
	}
	m.mu.Lock()
	delete(m.acts, id)
	m.mu.Unlock()
	c.cancel(nil)
	close(c.done)
}

// stopAct ends the power action under way, if there is one. The caller is the
// machine's job, so none begins after.
func (m *Manager) stopAct(id string) {
	m.mu.Lock()
	c := m.acts[id]
	m.mu.Unlock()
	if c != nil {
		c.cancel(errDestroying)
		<-c.done
	}
}

// busy tells whether the job changes the machine; one that is settled only
// sends callbacks.
func (j *job) busy() bool {
	select {
	case <-j.settled:
		return j.destroys
	default:
		return true
	}
}

func beingDestroyed(id string) error {
	return &Error{Code: CodeDestroying, Message: fmt.Sprintf("machine %s is being destroyed, so its power cannot be changed", id)}
}

// power does the action where the machine's state allows it. The record is read
// anew: a destruction may have ended meanwhile, or failed.
func (m *Manager) power(ctx context.Context, d Powerer, id string, a Action) error {
	r, err := m.record(id)
	if err != nil {
		return err
	}
	if r.Phase == Destroying {
		return beingDestroyed(id)
	}
	machine := m.machine(r)
	st, err := m.inspect(ctx, r)
	if err != nil {
		return m.powerError(ctx, id, a, err)
	}
	m.feed.saw(id, st.Power)
	switch {
	case st.Power != "" && st.Power == sets[a]:
		return nil
	case !slices.Contains(allows(st.Power), a):
		return forbidden(id, st.Power, a)
	}
	started := time.Now()
	if a == ActionOn {
		err = m.Driver.Start(ctx, machine)
	} else {
		err = d.Power(ctx, machine, a)
	}
	if err != nil {
		err = m.powerError(ctx, id, a, err)
		m.Log.Error("power action failed", "vm", id, "action", a, "err", err)
		return err
	}
	m.Log.Info("power action", "vm", id, "action", a, "took", time.Since(started).Round(time.Millisecond))
	if st, err := m.inspect(ctx, r); err == nil {
		m.feed.saw(id, st.Power)
	}
	return nil
}

func (m *Manager) powerError(ctx context.Context, id string, a Action, err error) error {
	var known *Error
	switch {
	case m.ctx.Err() != nil:
		return shuttingDown()
	case errors.Is(context.Cause(ctx), errDestroying):
		return &Error{Code: CodeDestroying, Message: fmt.Sprintf("machine %s was destroyed before the action %s was done", id, a)}
	case errors.As(err, &known):
		return known
	}
	return &Error{Code: CodeHypervisor, Message: fmt.Sprintf("the action %s on machine %s failed: %v; GET /vms/%s tells its state", a, id, err, id), Err: err}
}

// forbidden is the error for an action that the state does not allow.
func forbidden(id string, p Power, a Action) error {
	if p == "" {
		return &Error{Code: CodePower, Message: fmt.Sprintf("machine %s does not exist on the hypervisor, so %s cannot be done to it", id, a)}
	}
	var words []string
	for _, a := range allows(p) {
		words = append(words, string(a))
	}
	return &Error{
		Code:    CodePower,
		Message: fmt.Sprintf("machine %s is %s, which does not allow %s; it allows %s", id, p, a, strings.Join(words, ", ")),
	}
}
