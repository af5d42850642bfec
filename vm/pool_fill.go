package vm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"osx-builder/image"
)

const (
	// poolRetry is how soon a pool that is not full is tried again without a hint,
	// for example because its image was not there.
	poolRetry = 5 * time.Second

	// poolCheck is how often the machines that wait are checked.
	poolCheck = 30 * time.Second

	// poolPatience bounds how long a pool waits for creations to end before it
	// prepares a machine, so that it is filled some day on a host that is always busy.
	poolPatience = 5 * time.Second

	// poolRemoval bounds the removal of the machines that wait when the daemon
	// stops. The next start removes the rest.
	poolRemoval = 3 * time.Second
)

// run keeps the pools full until ctx ends, and then removes the machines that
// wait.
func (p *pools) run(ctx context.Context) {
	defer p.removeAll()
	for {
		p.refill(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.hints:
		case <-time.After(poolRetry):
		}
	}
}

// refill checks the machines that wait, and prepares others one at a time. Creations that run go first.
func (p *pools) refill(ctx context.Context) {
	if time.Since(p.checked) >= poolCheck && p.awaitQuiet(ctx) {
		p.check(ctx)
		p.checked = time.Now()
	}
	for _, one := range p.all {
		for p.lacks(one) && p.awaitQuiet(ctx) {
			err := p.change(ctx, func() error { return p.prepare(ctx, one) })
			if ctx.Err() != nil {
				return
			}
			p.note(one, err)
			if err != nil {
				p.check(ctx) // what makes the next machine fail may concern those that wait
				break
			}
		}
	}
}

// change calls f while nothing else prepares or removes machines. A panic of f is
// an error.
func (p *pools) change(ctx context.Context, f func() error) (err error) {
	select {
	case p.changing <- struct{}{}:
		defer func() { <-p.changing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("panic in a pool", "panic", r, "stack", string(debug.Stack()))
			err = internalError()
		}
	}()
	return f()
}

// lacks reports whether the pool has fewer machines than it is to have.
func (p *pools) lacks(one *pool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(one.ready) < one.count
}

// awaitQuiet waits until no creation runs, at most for poolPatience, and reports
// whether ctx goes on.
func (p *pools) awaitQuiet(ctx context.Context) bool {
	const look = 50 * time.Millisecond
	for end := time.Now().Add(poolPatience); time.Now().Before(end); {
		if _, creating := p.capacity.counts(); creating == 0 {
			break
		}
		if !sleep(ctx, look) {
			return false
		}
	}
	return ctx.Err() == nil
}

// note writes down how an attempt to prepare a machine ended.
func (p *pools) note(one *pool, err error) {
	problem := ""
	if e := asError(err); e != nil {
		problem = e.Message
	} else if err != nil {
		problem = err.Error()
	}
	p.mu.Lock()
	news := problem != one.problem
	one.problem = problem
	p.mu.Unlock()
	switch {
	case problem != "" && news:
		p.log.Warn("a pool is not full; trying again", "image", one.sum, "cpus", one.spec.CPUs, "memory_mib", one.spec.Memory, "why", problem)
	case news:
		p.log.Info("a pool is being filled", "image", one.sum, "cpus", one.spec.CPUs, "memory_mib", one.spec.Memory, "count", one.count)
	}
}

// prepare adds one machine to the pool. It needs change.
func (p *pools) prepare(ctx context.Context, one *pool) error {
	if err := p.removeGone(ctx); err != nil {
		return err
	}
	d, ok := p.driver.(Preloader)
	if !ok {
		return fmt.Errorf("the hypervisor %s cannot start machines from memory; QEMU can (-driver qemu)", p.hypervisor)
	}
	id := uuid.NewString()
	p.images.Hold(id, one.sum)
	gold, err := p.gold(one)
	if err == nil { // a pool without its image takes no capacity from others
		err = p.capacity.prepare(id, one.spec.Memory, one.spec.Network)
	}
	if err != nil {
		p.images.Release(id)
		return err
	}
	err = p.preload(ctx, d, p.machine(id, one), gold)
	p.mu.Lock()
	if err == nil {
		one.ready = append(one.ready, id)
	} else {
		p.gone = append(p.gone, id)
	}
	p.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		return errors.Join(err, p.removeGone(ctx))
	}
	return err
}

// gold returns the pool's image.
func (p *pools) gold(one *pool) (image.Gold, error) {
	gold, found, err := p.images.Lookup(one.sum)
	if err == nil && !found {
		err = fmt.Errorf("image %s is not in the cache; POST /images gets it", one.sum)
	}
	return gold, err
}

func (p *pools) preload(ctx context.Context, d Preloader, m Machine, gold image.Gold) error {
	if err := p.driver.Clone(ctx, m, gold.VMX); err != nil {
		return err
	}
	return d.Preload(ctx, m)
}

// machine returns a machine of the pool for the driver.
func (p *pools) machine(id string, one *pool) Machine {
	m := p.store.machine(&record{ID: id, Spec: one.spec})
	m.Annotation = fmt.Sprintf("osx-builder pool %s %s", one.sum.Type, one.sum.Hex)
	return m
}

// check removes the machines that wait and cannot be handed out any more, for
// example because their template is gone.
func (p *pools) check(ctx context.Context) {
	d, ok := p.driver.(Preloader)
	if !ok {
		return
	}
	for _, one := range p.all {
		p.mu.Lock()
		ids := slices.Clone(one.ready)
		p.mu.Unlock()
		for _, id := range ids {
			err := p.change(ctx, func() error { return d.Preload(ctx, p.machine(id, one)) })
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				p.log.Info("removing a machine of a pool", "vm", id, "why", err)
				p.drop(func(other string, _ *pool) bool { return other == id })
			}
		}
	}
	if err := p.change(ctx, func() error { return p.removeGone(ctx) }); err != nil && ctx.Err() == nil {
		p.log.Error("machines of a pool were not removed; trying again", "err", err)
	}
}

// without calls f while no machine of the image waits or is prepared.
func (p *pools) without(ctx context.Context, sum image.Sum, f func() error) error {
	defer p.hint()
	return p.change(ctx, func() error {
		p.drop(func(_ string, one *pool) bool { return one.sum == sum })
		if err := p.removeGone(ctx); err != nil {
			return err
		}
		return f()
	})
}

// drop takes machines out of the pools, to be removed.
func (p *pools) drop(which func(id string, one *pool) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		one.ready = slices.DeleteFunc(slices.Clone(one.ready), func(id string) bool {
			if !which(id, one) {
				return false
			}
			p.gone = append(p.gone, id)
			return true
		})
	}
}

// discard removes a machine that take returned, in the background.
func (p *pools) discard(id string) {
	p.mu.Lock()
	p.gone = append(p.gone, id)
	p.mu.Unlock()
	p.hint()
}

// removeGone removes what drop and discard took out. It needs change.
func (p *pools) removeGone(ctx context.Context) error {
	p.mu.Lock()
	ids := p.gone
	p.gone = nil
	p.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(destructionsAtOnce)
	for _, id := range ids {
		group.Go(func() error {
			if err := p.driver.Destroy(ctx, Machine{ID: id, Dir: filepath.Join(p.store.dir, id)}); err != nil {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.gone = append(p.gone, id)
				return fmt.Errorf("removing machine %s: %w", id, err)
			}
			p.capacity.remove(id)
			p.images.Release(id)
			return nil
		})
	}
	return group.Wait()
}

// removeAll removes all machines that wait.
func (p *pools) removeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), poolRemoval)
	defer cancel()
	p.drop(func(string, *pool) bool { return true })
	if err := p.change(ctx, func() error { return p.removeGone(ctx) }); err != nil {
		p.log.Warn("machines of a pool were not removed; the next start removes them", "err", err)
	}
}
