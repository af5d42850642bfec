package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
	m.sweepHost(ids)
	for _, id := range ids { // before the first job can make the cache evict anything
		m.holdImage(id)
	}
	for _, id := range ids {
		r, err := m.store.read(id)
		if err != nil {
			m.refuse(id, err)
			continue
		}
		m.resume(r)
	}
	return nil
}

// refuse deals with a record that cannot be read. Its machine counts.
func (m *Manager) refuse(id string, err error) {
	m.promise(id, 0)
	if errors.Is(err, errCorrupt) {
		if moveErr := m.store.setAside(id); moveErr != nil && !errors.Is(moveErr, fs.ErrNotExist) {
			err = errors.Join(err, moveErr)
		}
	}
	m.Log.Error("record cannot be read", "vm", id, "err", err)
}

// sweepHost lets the driver remove what the host holds of machines that have
// no record and no folder.
func (m *Manager) sweepHost(ids []string) {
	ctx, cancel := context.WithTimeout(m.ctx, time.Minute)
	defer cancel()
	if err := m.Driver.Sweep(ctx, func(id string) bool { return slices.Contains(ids, id) }); err != nil {
		m.Log.Error("what unknown machines left on the host was not removed", "err", err)
	}
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
	if r.rewind(time.Now().UTC()) {
		m.Log.Warn("the clock was set back; the machine's times are counted from now", "vm", r.ID)
		m.rewrite(r)
	}
	if !r.Gone {
		m.relist(r)
	}
	switch {
	case r.Gone:
		m.start(r.ID, true, func(ctx context.Context, j *job) {
			j.endDestruction(nil)
			m.deliver(ctx, r)
			m.forget(r)
		})
	case r.Phase == Destroying:
		m.destroyAgain(r)
	case !r.settled():
		r.Attempts++
		m.rewrite(r)
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

// destroyAgain goes on with a destruction, but not with one that took the
// daemon down again and again: that waits for a client's DELETE.
func (m *Manager) destroyAgain(r *record) {
	r.Attempts++
	if r.Attempts > maxAttempts {
		m.Log.Error("the daemon ended again and again while it destroyed this machine; DELETE tries once more", "vm", r.ID)
		return
	}
	m.rewrite(r)
	m.start(r.ID, true, func(ctx context.Context, j *job) { m.destroy(ctx, j, r.ID, "", nil) })
}

// relist puts a machine among those that exist.
func (m *Manager) relist(r *record) {
	m.feed.know(r.ID, r.Phase)
	if r.Phase != Failed {
		m.promise(r.ID, r.Spec.Memory)
	} else {
		m.promise(r.ID, 0)
	}
	if r.Key != "" {
		m.mu.Lock()
		m.keys[r.Key] = settledClaim(r.ID)
		m.mu.Unlock()
	}
	if r.Phase != Destroying {
		m.arm(r.ID, r.Expiry)
	}
}

// rewrite writes a record before its job begins.
func (m *Manager) rewrite(r *record) {
	if err := m.store.write(r); err != nil {
		m.Log.Error("record not written", "vm", r.ID, "err", err)
	}
}
