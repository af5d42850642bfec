package vm

import (
	"context"
	"fmt"
	"time"
)

// Change is what a client may change of a machine, as its JSON says it.
type Change struct {
	ExpiresIn NewExpiry `json:"expires_in"`

	Invalid []*Error `json:"-"` // fields that could not be read
}

// NewExpiry is the new end of a machine's lifetime.
type NewExpiry struct {
	Given bool
	After Lifetime // from now
	Never bool     // there is no end, as far as the host allows it
}

// UnmarshalJSON reads null, which means never, and the JSON of [Lifetime]. Its
// errors are *[Error].
func (e *NewExpiry) UnmarshalJSON(b []byte) error {
	e.Given, e.Never = true, string(b) == "null"
	return e.After.UnmarshalJSON(b)
}

// Change sets how long a machine still lives, counted from now, or removes the end
// of its lifetime. It may be called until the machine is being destroyed, and by
// many at once: the last one wins.
func (m *Manager) Change(ctx context.Context, id string, c Change) (VM, error) {
	if err := InvalidFields(c.Invalid); err != nil {
		return VM{}, err
	}
	switch longest := m.opts.longestLifetime(); {
	case !c.ExpiresIn.Given:
		return VM{}, missing("expires_in", wantLifetime(longest)+", or null to remove the end of the lifetime")
	case !c.ExpiresIn.Never && c.ExpiresIn.After == 0:
		return VM{}, lifetimeError("0", longest)
	}
	if _, err := m.opts.lifetime(c.ExpiresIn.After); err != nil {
		return VM{}, err
	}
	if _, err := m.store.get(id); err != nil {
		return VM{}, err
	}
	r, err := m.store.change(id, func(r *record) error { return m.opts.changeExpiry(r, c.ExpiresIn) })
	if err != nil {
		return VM{}, storeError(id, err)
	}
	m.timers.set(id, r.Expiry)
	return m.Get(ctx, id)
}

// changeExpiry sets the end of a machine's lifetime. If the host limits lifetimes,
// a machine that is to live forever gets the longest lifetime.
func (o *Options) changeExpiry(r *record, e NewExpiry) error {
	now := time.Now().UTC()
	switch {
	case r.Gone:
		return notFound(r.ID)
	case r.Phase == Destroying:
		return &Error{Code: CodeDestroying, Message: fmt.Sprintf("machine %s is being destroyed, so its lifetime cannot be changed", r.ID)}
	}
	left := r.CreatedAt.Add(o.longestLifetime()).Sub(now)
	d, err := o.lifetime(e.After)
	switch {
	case err != nil:
		return err
	case e.Never && o.MaxLifetime == 0:
		r.Expiry = expiry{}
	case e.Never:
		r.Expiry = newExpiry(max(left, time.Second), now)
	case d > left:
		return lifetimeError(fmt.Sprintf("%q", readable(d)), left.Truncate(time.Second))
	default:
		r.Expiry = newExpiry(d, now)
	}
	r.UpdatedAt = now
	return nil
}
