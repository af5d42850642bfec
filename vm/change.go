package vm

import (
	"context"
	"fmt"
	"time"
)

// Change is what a client may change of a machine, as its JSON says it.
type Change struct {
	ExpiresIn Lifetime `json:"expires_in"` // from now
}

// Change sets how long a machine still lives, counted from now. It may be called
// until the machine is being destroyed, and by many at once: the last one wins.
func (m *Manager) Change(ctx context.Context, id string, c Change) (VM, error) {
	longest := m.opts.longestLifetime()
	if c.ExpiresIn == 0 {
		return VM{}, lifetimeError("0", longest)
	}
	d, err := m.opts.lifetime(c.ExpiresIn)
	if err != nil {
		return VM{}, err
	}
	if _, err := m.store.get(id); err != nil {
		return VM{}, err
	}
	r, err := m.store.change(id, func(r *record) error {
		now := time.Now().UTC()
		switch {
		case r.Gone:
			return notFound(id)
		case r.Phase == Destroying:
			return &Error{Code: CodeDestroying, Message: fmt.Sprintf("machine %s is being destroyed, so its lifetime cannot be changed", id)}
		}
		if end := r.CreatedAt.Add(longest); now.Add(d).After(end) {
			return lifetimeError(fmt.Sprintf("%q", d), end.Sub(now).Truncate(time.Second))
		}
		r.Expiry, r.UpdatedAt = newExpiry(d, now), now
		return nil
	})
	if err != nil {
		return VM{}, storeError(id, err)
	}
	m.timers.set(id, r.Expiry)
	return m.Get(ctx, id)
}
