package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/google/uuid"
)

// Create accepts a request: when it returns, the record is on disk and the job
// runs. A key that is not empty makes it idempotent: the same key with the same
// request of the same owner returns the same machine for as long as that exists.
func (m *Manager) Create(ctx context.Context, q Request, key string) (VM, error) {
	s, err := m.check(ctx, q)
	if err != nil {
		return VM{}, err
	}
	if key == "" {
		return m.accept(ctx, s, q.Owner, nil)
	}
	for {
		res, isNew := m.keys.reserve(ownedKey{q.Owner, key})
		if isNew {
			v, err := m.accept(ctx, s, q.Owner, res)
			m.keys.complete(res, err == nil)
			return v, err
		}
		select {
		case <-res.done:
		case <-ctx.Done():
			return VM{}, ctx.Err()
		}
		v, found, err := m.repeat(ctx, res.id, s)
		if found || err != nil {
			return v, err
		}
		m.keys.free(res)
	}
}

// check makes a spec of a request that this host can fulfil. Its error names all invalid fields.
func (m *Manager) check(ctx context.Context, q Request) (spec, error) {
	p := problems{list: q.Invalid}
	q.Start = cmp.Or(q.Start, m.opts.Start)
	s := normalize(q, m.capacity.limits(), &p)
	p.add(m.opts.Hosts.checkURL("image.url", s.Image.URL))
	if s.CallbackURL != "" {
		p.add(m.opts.Hosts.checkURL("callback_url", s.CallbackURL))
	}
	var err error
	s.Disk, s.DiskText, err = parseDisk(q.Disk, m.opts.MaxDisk)
	p.add(err)
	if s.Disk > 0 {
		_, err = m.opts.checkDisk(s, m.opts.imageOf(s))
		p.add(err)
	}
	d, err := m.opts.lifetime(q.ExpiresIn)
	p.add(err)
	s.ExpiresIn = int(d / time.Second)
	p.add(m.opts.checkIdentity(s.Identity))
	if isNetworkType(s.Network) {
		p.addFor("network_type", m.opts.Driver.Network(s.Network))
	}
	if err := InvalidFields(p.list); err != nil {
		return s, err
	}
	return s, m.opts.Driver.Ready(ctx)
}

// accept writes the record of a new machine and starts its job. res is nil
// without a key.
func (m *Manager) accept(ctx context.Context, s spec, owner string, res *reservation) (VM, error) {
	src, err := s.source()
	if err != nil {
		return VM{}, err
	}
	if m.tasks.stopped() {
		return VM{}, shuttingDown()
	}
	now := time.Now().UTC()
	pooled := m.pools.take(s)
	r := newRecord(cmp.Or(pooled, uuid.NewString()), s, now)
	r.RequestID, r.Owner = RequestID(ctx), owner
	if host := m.opts.Driver.Limits().HostCPUs; host > 0 && s.CPUs > host {
		r.Warnings.Add(WarningCPUs, "the machine has %d virtual processors and the host has %d processors; more than the host has make the guest slower", s.CPUs, host)
	}
	r.Expiry = newExpiry(cmp.Or(time.Duration(s.ExpiresIn)*time.Second, m.opts.MaxLifetime), now)
	if err := m.admit(r, pooled); err != nil {
		m.pools.giveBack(pooled, s)
		return VM{}, err
	}
	if res != nil {
		r.Key = res.key.key
		m.keys.setMachine(res, r.ID)
	}
	m.opts.Images.Hold(r.ID, src.Sum) // before the record, so that the image is held at any time
	if err := m.store.write(r); err != nil {
		m.capacity.creationEnded()
		m.unregister(r.ID, r.key())
		if pooled != "" {
			m.pools.discard(pooled)
		}
		return VM{}, storeError(r.ID, errors.Join(err, m.store.remove(r.ID)))
	}
	v := r.resource(m.opts.Hypervisor, Status{})
	m.timers.set(r.ID, r.Expiry)
	m.events.add(r.ID, owner)
	if !m.startCreation(r) {
		m.capacity.creationEnded() // the Manager is closed; the next one resumes the creation
	}
	return v, nil
}

// admit counts a new machine. pooled is its id if it is one of a pool, or "".
func (m *Manager) admit(r *record, pooled string) error {
	if err := m.names.add(r.ID, r.Spec.Name, r.Owner); err != nil {
		return err
	}
	var err error
	if pooled == "" {
		err = m.capacity.admit(r.ID, r.Owner, r.Spec.Memory, r.Spec.Network)
	} else {
		err = m.capacity.admitPooled(pooled, r.Owner)
	}
	if err != nil {
		m.names.remove(r.ID)
	}
	return err
}

// startCreation starts the job of a machine that counts as being created. It
// returns false after Close.
func (m *Manager) startCreation(r *record) bool {
	_, isNew := m.jobs.start(r.ID, false, func(ctx context.Context, j *job) {
		c := &creation{vms: m, job: j, record: r, log: r.logger(m.opts.Log)}
		c.run(ctx)
	})
	return isNew
}

// repeat returns the machine that a key made before. found is false if it does
// not exist any more.
func (m *Manager) repeat(ctx context.Context, id string, s spec) (v VM, found bool, err error) {
	if id == "" {
		return VM{}, false, nil
	}
	j := m.jobs.get(id)
	r, err := m.store.get(id)
	if err != nil {
		if e := clientError(err); e.Code != CodeNotFound {
			return VM{}, true, e
		}
		return VM{}, false, nil
	}
	if !reflect.DeepEqual(r.Spec, s) {
		return VM{}, true, &Error{
			Code:    CodeIdempotencyConflict,
			Message: fmt.Sprintf("this Idempotency-Key was used for machine %s with a different request; use a new key", id),
		}
	}
	v, err = m.reader.describe(ctx, r, j)
	return v, true, err
}
