package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"osx-builder/callback"
)

// takeAway destroys a machine, and returns when nothing of it is left but,
// where a callback is owed, a record that nobody sees. why is set where the
// daemon does so by itself.
func (m *Manager) takeAway(ctx context.Context, id string, why *Error) error {
	for {
		j, mine := m.start(id, true, func(job context.Context, j *job) { m.destroy(job, j, id, RequestID(ctx), why) })
		if j == nil {
			return shuttingDown()
		}
		ended, err := j.over()
		switch {
		case mine, j.destroys && !ended:
			return j.destroyed(ctx)
		case j.destroys && err == nil:
			return notFound(id)
		}
		j.cancel(errDestroying) // a creation; a destruction that failed is at its end
		select {
		case <-j.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// destroy is the job that takes a machine away. The intent is on disk first,
// so that a crash does not bring the machine back; the record goes last.
func (m *Manager) destroy(ctx context.Context, j *job, id, request string, why *Error) {
	r, err := m.store.read(id)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && r.Gone) {
		j.endDestruction(notFound(id))
		return
	}
	if err != nil {
		m.Log.Warn("destroying a machine whose record cannot be read", "vm", id, "request_id", request, "err", err)
		r = &record{Version: recordVersion, ID: id, Phase: Destroying, RequestID: request}
	} else {
		r.RequestID = cmp.Or(request, r.RequestID)
		m.intend(ctx, r, why)
		m.feed.enter(id, Destroying, nil)
		m.tell(ctx, r)
	}
	log := m.logOf(r)
	m.stopAct(id)
	if err := m.Driver.Destroy(ctx, m.machine(r)); err != nil {
		log.Error("destruction failed", "err", err)
		m.survived(r)
		j.endDestruction(destroyError(ctx, id, err))
		return
	}
	if err := m.bury(ctx, r); err != nil {
		log.Error("destruction failed", "err", err)
		m.survived(r)
		j.endDestruction(storeError(id, err))
		return
	}
	log.Info("destroyed")
	m.feed.gone(id)
	j.endDestruction(nil)
	if r.due() {
		m.deliver(ctx, r)
		m.forget(r)
	}
}

// survived notes that a destruction which an earlier daemon began failed, and
// did not take the daemon down.
func (m *Manager) survived(r *record) {
	if r.Attempts == 0 {
		return
	}
	r.Attempts = 0
	if err := m.store.keep(r); err != nil {
		m.Log.Warn("attempts not taken back", "vm", r.ID, "err", err)
	}
}

// intend writes down that the machine is to go. A creation that this cancels
// owes its callback the news, and so does a machine whose time is up. A record
// that cannot be written, for want of space perhaps, does not stop the
// destruction, which makes room.
func (m *Manager) intend(ctx context.Context, r *record, why *Error) {
	if r.Phase == Destroying {
		return // what it owes was written down before
	}
	if !r.settled() && why == nil {
		why = &Error{Code: CodeCancelled, Message: "the machine was destroyed before it was ready"}
	} else if r.settled() && why != nil {
		r.announce()
	}
	r.Phase, r.Attempts, r.UpdatedAt = Destroying, 0, time.Now().UTC()
	if why != nil {
		r.Error = why
		m.fill(ctx, r)
	}
	if err := m.store.keep(r); err != nil {
		m.logOf(r).Warn("destroying without a record of it", "err", err)
	}
}

// tell lets the callback of a machine whose time is up know before it goes:
// one try, which holds the destruction up no longer than a receiver may.
func (m *Manager) tell(ctx context.Context, r *record) {
	o := r.next()
	if o == nil || o.Attempts > 0 || r.Error == nil || r.Error.Code != CodeExpired {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callback.Timeout)
	defer cancel()
	m.try(ctx, r, o)
}

// bury removes the machine's folder, its unfinished download, and its record
// or, where a callback is due, all of the record that can be seen.
func (m *Manager) bury(ctx context.Context, r *record) error {
	if err := os.RemoveAll(filepath.Join(m.Dir, r.ID)); err != nil {
		return fmt.Errorf("removing the machine's folder: %w", err)
	}
	m.Images.Release(r.ID)
	err := m.removeDownload(ctx, r)
	if err != nil {
		return err
	}
	if r.due() {
		r.Gone = true
		err = m.store.keep(r)
	} else {
		err = m.store.remove(r.ID)
	}
	if err == nil {
		m.unlist(r.ID, r.Key)
	}
	return err
}

// removeDownload removes what is left of the download of a machine whose
// creation did not end, unless another machine needs it. A download that broke
// stays for the next request, as its error promised. An error means that the
// daemon stops; what cannot be removed does not stop the destruction.
func (m *Manager) removeDownload(ctx context.Context, r *record) error {
	if r.Error != nil && (r.Error.Code == CodeImageDownload || r.Error.Code == CodeImageStalled) {
		return nil
	}
	src, err := r.Spec.source()
	if err != nil {
		return nil // of a record that cannot be read
	}
	err = m.Images.RemoveDownload(ctx, src.Sum)
	if err != nil && ctx.Err() != nil {
		return shuttingDown()
	}
	if err != nil {
		m.logOf(r).Warn("download not removed", "err", err)
	}
	return nil
}

// forget removes a tombstone whose callback is done with. Where the daemon
// stops instead, the tombstone stays for the next start.
func (m *Manager) forget(r *record) {
	if r.due() {
		return
	}
	if err := m.store.remove(r.ID); err != nil {
		m.logOf(r).Error("tombstone not removed", "err", err)
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

// storeError makes of a record that could not be written what a client may see
// of it.
func storeError(id string, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &Error{Code: CodeDiskFull, Message: "the disk of the data folder is full; make room and try again", Err: err}
	}
	return &Error{Code: CodeInternal, Message: fmt.Sprintf("the record of machine %s could not be written; the daemon's log has the details; try again", id), Err: err}
}
