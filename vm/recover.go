package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// recover gives every record that owes something its job again and sweeps what
// has no record.
func (m *Manager) recover() error {
	ids, litter, err := m.store.ids()
	if err != nil {
		return fmt.Errorf("reading the records: %w", err)
	}
	for _, name := range litter {
		if err := m.sweep(name); err != nil {
			m.Log.Error("litter not removed", "path", filepath.Join(m.Dir, name), "err", err)
		}
	}
	for _, id := range ids {
		r, err := m.store.read(id)
		if err != nil {
			m.Log.Error("record set aside", "vm", id, "err", err)
			continue
		}
		m.resume(r)
	}
	return nil
}

// sweep removes a file or folder that belongs to no record, with the machine
// that may run from it.
func (m *Manager) sweep(name string) error {
	path := filepath.Join(m.Dir, name)
	m.Log.Info("removing what an earlier run left", "path", path)
	if ValidID(name) {
		ctx, cancel := context.WithTimeout(m.ctx, time.Minute)
		defer cancel()
		if err := m.Driver.Destroy(ctx, Machine{ID: name, Dir: path}); err != nil {
			return err
		}
	}
	return os.RemoveAll(path)
}

// resume starts the job that the record asks for.
func (m *Manager) resume(r *record) {
	if r.Key != "" && !r.Gone {
		m.mu.Lock()
		m.keys[r.Key] = settledClaim(r.ID)
		m.mu.Unlock()
	}
	switch {
	case r.Gone:
		m.start(r.ID, true, func(ctx context.Context, j *job) {
			j.endDestruction(nil)
			m.deliver(ctx, r)
			m.forget(r)
		})
	case r.Phase == Destroying:
		m.start(r.ID, true, func(ctx context.Context, j *job) { m.destroy(ctx, j, r.ID) })
	case !r.settled():
		r.Attempts++
		if err := m.store.write(r); err != nil {
			m.Log.Error("attempt not counted", "vm", r.ID, "err", err)
		}
		m.mu.Lock()
		m.creating++
		m.mu.Unlock()
		m.start(r.ID, false, func(ctx context.Context, j *job) { m.create(ctx, j, r) })
	case r.due():
		m.start(r.ID, false, func(ctx context.Context, j *job) {
			j.settle()
			m.deliver(ctx, r)
		})
	}
}
