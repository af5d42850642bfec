package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// destroy is the job that takes a machine away. The intent is on disk first,
// so that a crash does not bring the machine back; the record goes last.
func (m *Manager) destroy(ctx context.Context, j *job, id string) {
	r, err := m.store.read(id)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && r.Gone) {
		j.endDestruction(notFound(id))
		return
	}
	log := m.Log.With("vm", id)
	if err != nil {
		log.Warn("destroying a machine whose record cannot be read", "err", err)
		r = &record{Version: recordVersion, ID: id}
	}
	m.intend(ctx, r)
	if err := m.Driver.Destroy(ctx, m.machine(r)); err != nil {
		log.Error("destruction failed", "err", err)
		j.endDestruction(destroyError(ctx, id, err))
		return
	}
	if err := m.bury(r); err != nil {
		log.Error("destruction failed", "err", err)
		j.endDestruction(err)
		return
	}
	log.Info("destroyed")
	j.endDestruction(nil)
	if r.due() {
		m.deliver(ctx, r)
		m.forget(r)
	}
}

// intend writes down that the machine is to go. A creation that this cancels
// owes its callback the news. A record that cannot be written, for want of
// space perhaps, does not stop the destruction, which makes room.
func (m *Manager) intend(ctx context.Context, r *record) {
	cancelled := !r.settled()
	r.Phase, r.UpdatedAt = Destroying, time.Now().UTC()
	if cancelled {
		r.Error = &Error{Code: CodeCancelled, Message: "the machine was destroyed before it was ready"}
		m.fill(ctx, r)
	}
	if err := m.store.write(r); err != nil {
		m.Log.Warn("destroying without a record of it", "vm", r.ID, "err", err)
	}
}

// bury removes the machine's folder, and its record or, where a callback is
// due, all of the record that can be seen.
func (m *Manager) bury(r *record) error {
	if err := os.RemoveAll(filepath.Join(m.Dir, r.ID)); err != nil {
		return fmt.Errorf("removing the machine's folder: %w", err)
	}
	m.dropKey(r.Key)
	if !r.due() {
		return m.store.remove(r.ID)
	}
	r.Gone = true
	return m.store.write(r)
}

// forget removes a tombstone whose callback is done with. Where the daemon
// stops instead, the tombstone stays for the next start.
func (m *Manager) forget(r *record) {
	if r.due() {
		return
	}
	if err := m.store.remove(r.ID); err != nil {
		m.Log.Error("tombstone not removed", "vm", r.ID, "err", err)
	}
}

func destroyError(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		return shuttingDown()
	}
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return &Error{Code: CodeHypervisor, Message: fmt.Sprintf("machine %s could not be destroyed: %v; try again", id, err), Err: err}
}
