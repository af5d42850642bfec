package vm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// inspectTimeout bounds one inspection of a machine. The reader of a machine
	// that hangs loses an answer, not a connection.
	inspectTimeout = 10 * time.Second

	// readsAtOnce bounds how many records are read side by side: each occupies
	// a thread while the disk is at work.
	readsAtOnce = 16
)

// Get reads a machine's record and its live state.
func (m *Manager) Get(ctx context.Context, id string) (VM, error) {
	return m.reader.read(ctx, id)
}

// Wait is Get once the machine is ready, failed or being destroyed, or once d is
// over.
func (m *Manager) Wait(ctx context.Context, id string, d time.Duration) (VM, error) {
	if d <= 0 {
		return m.Get(ctx, id)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for waiting := true; waiting; {
		j := m.jobs.get(id)
		r, err := m.store.get(id)
		if err != nil || j == nil || r.settled() {
			break
		}
		select {
		case <-j.settled:
		case <-timer.C:
			waiting = false
		case <-m.tasks.ctx.Done():
			waiting = false
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
	}
	return m.Get(ctx, id)
}

// Filter chooses machines for List; an empty field chooses all.
type Filter struct {
	Phase  Phase
	Status Power
	Labels []Label // the machine has all of them
	Owner  string
}

func (f Filter) chooses(v *VM) bool {
	return (f.Phase == "" || v.Phase == f.Phase) && (f.Status == "" || v.Status == f.Status) && (f.Owner == "" || v.Owner == f.Owner) && v.Labels.have(f.Labels)
}

// List reads the machines of the owners, oldest first. A machine that cannot be read, or not
// within listTimeout, is among them with its Error set.
func (m *Manager) List(ctx context.Context, f Filter, o Owners) ([]VM, error) {
	ids, err := m.store.ids()
	if err != nil {
		return nil, err
	}
	ids = m.names.ownedBy(ids, o)
	list := make([]VM, 0, len(ids))
	m.reader.each(ctx, ids, func(v *VM) {
		if v != nil && f.chooses(v) {
			list = append(list, *v)
		}
	})
	slices.SortFunc(list, func(a, b VM) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return list, ctx.Err()
}

// reader joins what the record, the job and the hypervisor say of a machine. It
// takes no lock of what changes machines.
type reader struct {
	store       *store
	driver      Driver
	hypervisor  string
	jobs        *jobs
	inspections *inspections
	listings    *listings // nil if the driver reads machines one by one
}

func (r *reader) read(ctx context.Context, id string) (VM, error) {
	j := r.jobs.get(id)
	rec, err := r.store.get(id)
	if err != nil {
		return VM{}, err
	}
	return r.describe(ctx, rec, j)
}

// inspect reads one machine's live state for a reader of that machine alone.
func (r *reader) inspect(ctx context.Context, rec *record) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	return r.driver.Inspect(ctx, r.store.machine(rec))
}

// describe reads a machine's live state and joins it with the record and the
// job. The job is that of before the record was read: a later one could have
// ended already, and a record that is not settled would seem to have none.
func (r *reader) describe(ctx context.Context, rec *record, j *job) (VM, error) {
	st, err := r.inspect(ctx, rec)
	return r.join(rec, j, st, err)
}

func (r *reader) join(rec *record, j *job, st Status, err error) (VM, error) {
	v := rec.resource(r.hypervisor, st)
	if j != nil && rec.Phase == Accepted {
		v.Phase, v.Progress = j.current()
	}
	if err == nil || rec.Phase == Accepted || rec.Phase == Destroying {
		return v, nil // the job changes the machine while it is read
	}
	v.Error = unreadable(rec.ID, err)
	return v, v.Error
}

// each reads machines side by side and calls f with each of them as soon as it is read, nil if it
// does not exist any more. It takes little more than listTimeout, however many machines are slow.
func (r *reader) each(ctx context.Context, ids []string, f func(*VM)) {
	var found []recorded
	for i, one := range r.records(ids) {
		if one.err != nil {
			f(r.withoutRecord(ids[i], one.err))
			continue
		}
		found = append(found, one)
	}
	if r.listings != nil {
		found = r.eachListed(ctx, found, f)
	}
	r.eachInspected(ctx, found, f)
}

// recorded is what each knows of a machine before its live state.
type recorded struct {
	job    *job
	record *record
	err    error // why there is no record
}

// records reads the records of machines side by side. Few goroutines share the work: one for each
// machine would take longer to start, and to grow its stack, than to read a record.
func (r *reader) records(ids []string) []recorded {
	read := make([]recorded, len(ids))
	var next atomic.Int64
	var readers sync.WaitGroup
	for range min(readsAtOnce, len(ids)) {
		readers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(ids)); i = next.Add(1) - 1 {
				read[i].job = r.jobs.get(ids[i])
				read[i].record, read[i].err = r.store.get(ids[i])
			}
		})
	}
	readers.Wait()
	return read
}

// machines returns the machines of records for the driver.
func (r *reader) machines(found []recorded) []Machine {
	machines := make([]Machine, len(found))
	for i, one := range found {
		machines[i] = r.store.machine(one.record)
	}
	return machines
}

// eachInspected is each for machines whose records have been read.
func (r *reader) eachInspected(ctx context.Context, found []recorded, f func(*VM)) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	r.inspections.each(ctx, r.machines(found), func(is inspected) {
		one := found[is.index]
		v, _ := r.join(one.record, one.job, is.status, is.err) // v.Error has it
		f(&v)
	})
}

// eachListed is eachInspected with a driver that lists machines. It returns those that should be
// in the list and are not.
func (r *reader) eachListed(ctx context.Context, found []recorded, f func(*VM)) (missing []recorded) {
	statuses, err := r.listings.read(ctx, r.machines(found))
	for _, one := range found {
		st, listed := statuses[one.record.ID]
		if err == nil && !listed && one.record.Phase == Ready {
			missing = append(missing, one)
			continue
		}
		v, _ := r.join(one.record, one.job, st, err) // v.Error has it
		f(&v)
	}
	return missing
}

// withoutRecord returns a machine whose record cannot be read as List shows it,
// nil if it does not exist any more.
func (r *reader) withoutRecord(id string, err error) *VM {
	e := clientError(err)
	if e.Code == CodeNotFound {
		return nil
	}
	return &VM{ID: id, Error: e, Hypervisor: r.hypervisor, ToolsStatus: ToolsUnknown}
}

// unreadable is the error for a machine whose live state cannot be read.
func unreadable(id string, err error) *Error {
	if known := asError(err); known != nil && known.Code == CodeOpen {
		return known
	}
	return &Error{Code: CodeOpen, Message: fmt.Sprintf("the state of machine %s cannot be read: %v", id, err), Err: err}
}
