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

// recover gives every record that is not finished a job again, and removes what
// has no record.
func (m *Manager) recover() error {
	r := recovery{vms: m}
	tombstones := r.tombstones() // first: it removes the records of machines that are destroyed
	ids, err := m.store.ids()
	if err != nil {
		return fmt.Errorf("reading the records: %w", err)
	}
	litter, others, err := m.store.litter()
	if err != nil {
		return fmt.Errorf("reading the machines' folder: %w", err)
	}
	if len(others) > 0 {
		m.opts.Log.Info("files that this daemon did not make are left alone", "dir", m.opts.Dir, "names", others)
	}
	for _, name := range litter {
		if err := r.sweep(name); err != nil {
			m.opts.Log.Error("litter not removed", "path", filepath.Join(m.opts.Dir, name), "err", err)
		}
	}
	r.sweepHost(ids)
	for _, id := range ids { // before the first job can make the cache evict an image
		r.holdImage(id)
	}
	if err := m.images.load(); err != nil {
		return err
	}
	for _, id := range ids {
		rec, err := m.store.read(id)
		if err != nil {
			r.keepUnreadable(id, err)
			continue
		}
		if rec.Gone { // written by an earlier version
			r.moveToTombstones(rec)
			tombstones = append(tombstones, rec)
			continue
		}
		r.resume(rec)
	}
	m.images.resume()
	r.sendLast(tombstones)
	return nil
}

// recovery takes over what an earlier Manager left.
type recovery struct{ vms *Manager }

// sweepHost lets the driver remove what the host holds of machines that have no
// record and no folder.
func (r recovery) sweepHost(ids []string) {
	ctx, cancel := context.WithTimeout(r.vms.tasks.ctx, time.Minute)
	defer cancel()
	known := make(map[string]bool, len(ids))
	for _, id := range ids {
		known[id] = true
	}
	if err := r.vms.opts.Driver.Sweep(ctx, func(id string) bool { return known[id] }); err != nil {
		r.vms.opts.Log.Error("the host was not swept of what unknown machines left", "err", err)
	}
}

// sweep removes a file or folder that belongs to no record, with the machine
// that may run from it.
func (r recovery) sweep(name string) error {
	path := filepath.Join(r.vms.opts.Dir, name)
	r.vms.opts.Log.Info("removing what an earlier run left", "path", path)
	if ValidID(name) {
		ctx, cancel := context.WithTimeout(r.vms.tasks.ctx, time.Minute)
		defer cancel()
		if err := r.vms.opts.Driver.Destroy(ctx, Machine{ID: name, Dir: path}); err != nil {
			return err
		}
	}
	return os.RemoveAll(path)
}

// holdImage tells the image cache which image a machine needs, so that it is not
// evicted. If the record does not say which, all images are held.
func (r recovery) holdImage(id string) {
	switch needed, sum, err := r.vms.store.imageOf(id); {
	case err != nil:
		r.vms.opts.Images.HoldAll(id, err)
	case needed:
		r.vms.opts.Images.Hold(id, sum)
	}
}

// keepUnreadable deals with a record that cannot be read. Its machine counts.
func (r recovery) keepUnreadable(id string, err error) {
	r.vms.capacity.setMemory(id, 0)
	_ = r.vms.names.add(id, "", "") // a machine without a name is never refused
	if errors.Is(err, errCorrupt) {
		if moveErr := setAside(r.vms.store.path(id)); moveErr != nil && !errors.Is(moveErr, fs.ErrNotExist) {
			err = errors.Join(err, moveErr)
		}
	}
	r.vms.opts.Log.Error("record cannot be read", "vm", id, "err", err)
}

// resume starts the job that the record asks for.
func (r recovery) resume(rec *record) {
	m := r.vms
	r.clampTimes(rec)
	r.register(rec)
	switch {
	case rec.Phase == Destroying:
		r.resumeDestruction(rec)
	case !rec.settled():
		rec.Attempts++
		r.write(rec)
		m.capacity.resume()
		m.startCreation(rec)
	case rec.due():
		m.jobs.start(rec.ID, false, func(ctx context.Context, j *job) {
			j.settle()
			m.callbacks.deliver(ctx, rec)
		})
	}
}

// clampTimes corrects times of a record that are too far ahead.
func (r recovery) clampTimes(rec *record) {
	if rec.clampTimes(time.Now().UTC()) {
		r.vms.opts.Log.Warn("the clock was set back; the machine's times are counted from now", "vm", rec.ID)
		r.write(rec)
	}
}

// resumeDestruction continues a destruction, unless the daemon ended during it
// several times. Then it waits for a client's DELETE.
func (r recovery) resumeDestruction(rec *record) {
	rec.Attempts++
	if rec.Attempts > maxAttempts {
		r.vms.opts.Log.Error("the daemon ended several times while it destroyed this machine; DELETE tries again", "vm", rec.ID)
		return
	}
	r.write(rec)
	r.vms.startDestruction(rec.ID, "", nil)
}

// register adds a machine that exists to the parts.
func (r recovery) register(rec *record) {
	r.vms.events.restore(rec.ID, rec.Owner, rec.Phase)
	r.addName(rec)
	memory := rec.Spec.Memory
	if rec.Phase == Failed {
		memory = 0
	}
	r.vms.capacity.restore(rec.ID, rec.Owner, memory, rec.Spec.Network)
	if rec.Key != "" {
		r.vms.keys.restore(rec.key(), rec.ID)
	}
	if rec.Phase != Destroying {
		r.vms.timers.set(rec.ID, rec.Expiry)
	}
}

// addName adds a machine to the index of names. If two records have the same name, because somebody copied one, the
// second machine is known by its id only.
func (r recovery) addName(rec *record) {
	if err := r.vms.names.add(rec.ID, rec.Spec.Name, rec.Owner); err != nil {
		r.vms.opts.Log.Error("the machine is known by its id only", "vm", rec.ID, "err", err)
		_ = r.vms.names.add(rec.ID, "", rec.Owner) // a machine without a name is never refused
	}
}

// write writes a record before its job starts.
func (r recovery) write(rec *record) {
	if err := r.vms.store.write(rec); err != nil {
		r.vms.opts.Log.Error("record not written", "vm", rec.ID, "err", err)
	}
}
