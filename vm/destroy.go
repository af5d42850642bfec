package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"osx-builder/callback"

	"golang.org/x/sync/errgroup"
)

// Destroy destroys a machine and returns once nothing of it is left. If a
// callback is due, its record is left as a tombstone, which no reader opens. A
// creation that runs is cancelled first. The destruction continues when ctx
// ends, and after a restart of the daemon. Of several calls at once each returns
// nil or an error of CodeNotFound.
func (m *Manager) Destroy(ctx context.Context, id string) error {
	if !ValidID(id) {
		return notFound(id)
	}
	return m.destroyAndWait(ctx, id, nil)
}

// destructionsAtOnce bounds the machines that one request destroys side by side.
const destructionsAtOnce = 16

// DestroyLabelled destroys all machines of the owners that have the labels, side by side, and returns their ids, oldest
// first, once nothing of them is left. Machines that are created meanwhile may stay. If a machine cannot be destroyed, the
// error names it, and the others are destroyed all the same. There must be at least one label.
func (m *Manager) DestroyLabelled(ctx context.Context, labels []Label, o Owners) (ids []string, err error) {
	if len(labels) == 0 {
		return nil, missing("label", "the label of the machines to destroy, as in job=1234")
	}
	list, err := m.store.ids()
	if err != nil {
		return nil, err
	}
	var chosen []*record
	for _, id := range list {
		if r, err := m.store.get(id); err == nil && o.include(r.Owner) && r.Spec.Labels.have(labels) {
			chosen = append(chosen, r)
		}
	}
	slices.SortFunc(chosen, func(a, b *record) int { return a.CreatedAt.Compare(b.CreatedAt) })
	var group errgroup.Group
	group.SetLimit(destructionsAtOnce)
	for _, r := range chosen {
		id := r.ID
		ids = append(ids, id)
		group.Go(func() error {
			if err := m.destroyAndWait(ctx, id, nil); err != nil && clientError(err).Code != CodeNotFound {
				e := *clientError(err)
				e.Message = fmt.Sprintf("machine %s: %s", id, e.Message)
				return &e
			}
			return nil
		})
	}
	return ids, group.Wait()
}

// destroyAndWait starts the destruction of a machine, or finds the one that
// runs, and waits for its end. why is set if the daemon destroys the machine by
// itself.
func (m *Manager) destroyAndWait(ctx context.Context, id string, why *Error) error {
	for {
		j, isNew := m.startDestruction(id, RequestID(ctx), why)
		if j == nil {
			return shuttingDown()
		}
		ended, err := j.result()
		switch {
		case isNew, j.destroys && !ended:
			return j.waitDestroyed(ctx)
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

func (m *Manager) startDestruction(id, requestID string, why *Error) (j *job, isNew bool) {
	return m.jobs.start(id, true, func(ctx context.Context, j *job) {
		d := &destruction{vms: m, job: j, id: id, requestID: requestID, why: why}
		d.run(ctx)
	})
}

// destruction is the job that destroys a machine. The intent is on disk first,
// so that a crash does not bring the machine back; the record is removed last.
type destruction struct {
	vms       *Manager
	job       *job
	id        string
	requestID string // of the request that asks for it, or ""
	why       *Error // set if the daemon destroys the machine by itself

	record *record
	log    *slog.Logger
}

func (d *destruction) run(ctx context.Context) {
	m := d.vms
	r, err := m.store.read(d.id)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && r.Gone) {
		d.job.setDestroyed(notFound(d.id))
		return
	}
	if err != nil {
		m.opts.Log.Warn("destroying a machine whose record cannot be read", "vm", d.id, "request_id", d.requestID, "err", err)
		r = &record{Version: recordVersion, ID: d.id, Phase: Destroying}
	}
	r.RequestID = cmp.Or(d.requestID, r.RequestID)
	d.record, d.log = r, r.logger(m.opts.Log)
	if err == nil {
		d.markDestroying(ctx)
		m.events.setPhase(d.id, Destroying, nil)
		d.notifyExpiry(ctx)
	}
	m.power.stop(d.id)
	if err := d.remove(ctx); err != nil {
		d.log.Error("destruction failed", "err", err)
		d.resetAttempts()
		d.job.setDestroyed(destroyError(ctx, d.id, err))
		return
	}
	d.log.Info("destroyed")
	m.events.remove(d.id)
	d.job.setDestroyed(nil)
	if r.Gone {
		m.tombstones.add(r)
	}
}

// markDestroying writes down that the machine is to be destroyed. If that
// cancels its creation, or its lifetime is over, its callback is due. A record
// that cannot be written, perhaps because the disk is full, does not stop the
// destruction, which frees space.
func (d *destruction) markDestroying(ctx context.Context) {
	r, why := d.record, d.why
	if r.Phase == Destroying {
		return // an earlier destruction did that
	}
	if !r.settled() && why == nil {
		why = &Error{Code: CodeCancelled, Message: "the machine was destroyed before it was ready"}
	} else if r.settled() && why != nil {
		r.addMessage()
	}
	r.Phase, r.Attempts, r.UpdatedAt = Destroying, 0, time.Now().UTC()
	if why != nil {
		r.Error = why
		d.vms.callbacks.fill(ctx, r)
	}
	if err := d.vms.store.keep(r); err != nil {
		d.log.Warn("destroying without a record of it", "err", err)
	}
}

// notifyExpiry sends the callback of an expired machine once before the machine
// is destroyed. It delays the destruction no longer than a receiver may take.
func (d *destruction) notifyExpiry(ctx context.Context) {
	r := d.record
	msg := r.next()
	if msg == nil || msg.Attempts > 0 || r.Error == nil || r.Error.Code != CodeExpired {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callback.Timeout)
	defer cancel()
	d.vms.callbacks.try(ctx, r, msg)
}

// remove removes the machine, and its record last.
func (d *destruction) remove(ctx context.Context) error {
	vm := d.vms.store.machine(d.record)
	if err := d.vms.opts.Driver.Destroy(ctx, vm); err != nil {
		return err
	}
	if err := os.RemoveAll(vm.Dir); err != nil {
		return storeError(d.id, fmt.Errorf("removing the machine's folder: %w", err))
	}
	d.vms.opts.Images.Release(d.id)
	if err := d.removeDownload(ctx); err != nil {
		return err
	}
	return d.removeRecord()
}

// removeDownload removes what is left of the download of a machine whose
// creation did not end, unless another machine needs it. After a download that
// failed, it stays for the next request, as the error's message says. An error
// means that the daemon stops; a download that cannot be removed does not stop
// the destruction.
func (d *destruction) removeDownload(ctx context.Context) error {
	if e := d.record.Error; e != nil && (e.Code == CodeImageDownload || e.Code == CodeImageStalled) {
		return nil
	}
	src, err := d.record.Spec.source()
	if err != nil {
		return nil // the record cannot be read
	}
	err = d.vms.opts.Images.RemoveDownload(ctx, src.Sum)
	if err != nil && ctx.Err() != nil {
		return shuttingDown()
	}
	if err != nil {
		d.log.Warn("download not removed", "err", err)
	}
	return nil
}

// removeRecord removes the record or, if a callback is due, makes it a
// tombstone.
func (d *destruction) removeRecord() error {
	r := d.record
	var err error
	if r.due() {
		err = d.vms.store.makeTombstone(r)
	} else {
		err = d.vms.store.remove(d.id)
	}
	if err != nil {
		return storeError(d.id, err)
	}
	d.vms.unregister(d.id, r.key())
	return nil
}

// resetAttempts notes that a destruction that an earlier daemon began has
// failed: it did not end the daemon.
func (d *destruction) resetAttempts() {
	if d.record.Attempts == 0 {
		return
	}
	d.record.Attempts = 0
	if err := d.vms.store.keep(d.record); err != nil {
		d.log.Warn("the number of attempts was not written", "err", err)
	}
}

func destroyError(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		return shuttingDown()
	}
	if known := asError(err); known != nil {
		return known
	}
	return &Error{Code: CodeHypervisor, Message: fmt.Sprintf("machine %s could not be destroyed: %v; try again", id, err), Err: err}
}
