package vm

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// maxTombstones bounds the tombstones, if [Options] does not. It is the default
// of -vms: no callback is lost if a receiver is down while all machines of a
// full host end. A thousand take about 4 MiB, on disk and in memory.
const maxTombstones = 1000

// tombstones sends what destroyed machines still have to send. Between two
// attempts a tombstone has a timer, and no goroutine. If there are too many, the
// oldest is dropped with its messages.
type tombstones struct {
	tasks     *tasks
	store     *store
	callbacks *callbacks
	hooks     Hooks
	log       *slog.Logger
	most      int

	mu     sync.Mutex   // guards what follows
	all    []*tombstone // the oldest first
	closed bool
}

// tombstone is one destroyed machine. Its file and its record belong to the
// attempt that runs, otherwise to whoever takes the tombstone from the list.
// Fields without another comment are guarded by tombstones.mu.
type tombstone struct {
	record  *record // with a message that is due; see above
	timer   *time.Timer
	cancel  context.CancelFunc // of the attempt that runs, otherwise nil
	dropped bool
}

// add adds the record of a machine that was destroyed, and sends its messages.
func (t *tombstones) add(r *record) { t.schedule(t.register(r)) }

// restore adds the tombstones that an earlier Manager left.
func (t *tombstones) restore(records []*record) {
	slices.SortStableFunc(records, func(a, b *record) int { return a.UpdatedAt.Compare(b.UpdatedAt) })
	added := make([]*tombstone, 0, len(records))
	for _, r := range records {
		added = append(added, t.register(r))
	}
	for _, s := range added { // those that are dropped by now send nothing
		t.schedule(s)
	}
}

// register adds a tombstone to the list, and drops the oldest one if there are
// too many.
func (t *tombstones) register(r *record) *tombstone {
	s := &tombstone{record: r}
	var discard *tombstone
	t.mu.Lock()
	t.all = append(t.all, s)
	if len(t.all) > t.most {
		oldest := t.all[0]
		t.all = slices.Delete(t.all, 0, 1)
		oldest.dropped = true
		if oldest.cancel != nil {
			oldest.cancel() // its attempt discards it
		} else {
			discard = oldest
		}
		if oldest.timer != nil {
			oldest.timer.Stop()
		}
	}
	t.mu.Unlock()
	if discard != nil {
		t.discard(discard)
	}
	return s
}

// schedule starts the next attempt when it is due.
func (t *tombstones) schedule(s *tombstone) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.dropped || t.closed {
		return
	}
	wait := time.Until(s.record.next().NextAt)
	if wait <= 0 {
		t.tasks.run(func() { t.send(s) })
		return
	}
	s.timer = time.AfterFunc(wait, func() {
		if t.tasks.begin() {
			defer t.tasks.end()
			t.send(s)
		}
	})
}

// send makes one attempt, and schedules the next one or removes the tombstone.
// If the daemon stops first, the tombstone stays for the next start.
func (t *tombstones) send(s *tombstone) {
	t.mu.Lock()
	if s.dropped {
		t.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(t.tasks.ctx)
	defer cancel()
	s.cancel = cancel
	t.mu.Unlock()

	tried := t.try(ctx, s.record)

	t.mu.Lock()
	s.cancel = nil
	dropped, due := s.dropped, s.record.due()
	if !due {
		t.all = slices.DeleteFunc(t.all, func(other *tombstone) bool { return other == s })
	}
	t.mu.Unlock()
	switch {
	case dropped || !due:
		t.discard(s)
	case tried:
		t.schedule(s)
	}
}

// try sends the next message of a record once. It returns false if ctx ended
// first. A panic gives the message up.
func (t *tombstones) try(ctx context.Context, r *record) (tried bool) {
	msg := r.next()
	defer func() {
		if p := recover(); p != nil {
			t.log.Error("panic while sending a callback", "vm", r.ID, "panic", p, "stack", string(debug.Stack()))
			msg.State, tried = CallbackGivenUp, true
		}
	}()
	return t.callbacks.try(ctx, r, msg)
}

// discard removes the file of a tombstone that is not in the list any more. The
// messages that it did not send are lost.
func (t *tombstones) discard(s *tombstone) {
	log := s.record.logger(t.log)
	for msg := range s.record.pending() {
		t.hooks.CallbackDropped()
		log.Warn("callback of a destroyed machine dropped: too many of them are not accepted", "message", msg.MessageID,
			"url", redacted(msg.URL), "limit", t.most, "attempts", msg.Attempts, "err", msg.LastError)
	}
	if err := t.store.remove(s.record.ID); err != nil {
		log.Error("tombstone not removed", "err", err)
	}
}

// close stops all timers.
func (t *tombstones) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, s := range t.all {
		if s.timer != nil {
			s.timer.Stop()
		}
	}
}

// tombstones returns the tombstones that an earlier Manager left. A record next
// to a tombstone is removed: the Manager ended before it removed that itself. A
// tombstone that cannot be read is logged and kept.
func (r recovery) tombstones() []*record {
	ids, err := r.vms.store.tombstoneIDs()
	if err != nil {
		r.vms.opts.Log.Error("tombstones not read", "err", err)
	}
	var found []*record
	for _, id := range ids {
		rec, err := r.vms.store.readTombstone(id)
		if err == nil {
			err = r.vms.store.removeRecord(id)
		}
		if err == nil {
			found = append(found, rec)
		} else if errors.Is(err, errCorrupt) {
			err = errors.Join(err, setAside(r.vms.store.tombstonePath(id)))
		}
		if err != nil {
			r.vms.opts.Log.Error("the tombstone of a machine cannot be used", "vm", id, "err", err)
		}
	}
	return found
}

// moveToTombstones makes a tombstone of a record that an earlier version marked as one.
func (r recovery) moveToTombstones(rec *record) {
	if err := r.vms.store.makeTombstone(rec); err != nil {
		r.vms.opts.Log.Error("tombstone not written", "vm", rec.ID, "err", err)
	}
}

// sendLast sends what the tombstones have to send.
func (r recovery) sendLast(tombstones []*record) {
	due := tombstones[:0]
	for _, rec := range tombstones {
		r.clampTimes(rec)
		if rec.due() {
			due = append(due, rec)
		} else if err := r.vms.store.remove(rec.ID); err != nil {
			r.vms.opts.Log.Error("tombstone not removed", "vm", rec.ID, "err", err)
		}
	}
	r.vms.tombstones.restore(due)
}
