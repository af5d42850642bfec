package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"osx-builder/image"
)

// pollEvery is how often a booting machine is inspected.
const pollEvery = 200 * time.Millisecond

// creation is the job that creates a machine, writes down how that ended and
// sends the callback. A failure leaves nothing of the machine but the record; an
// interruption leaves everything for the next job.
type creation struct {
	vms    *Manager
	job    *job
	record *record
	log    *slog.Logger

	address string    // of the guest, once it answered
	start   StartMode // how the machine was started
	booted  bool      // the log says why it did not start from memory
}

func (c *creation) run(ctx context.Context) {
	m, r := c.vms, c.record
	c.log.Info("creating", "image", image.PublicURL(r.Spec.Image.URL), "cpus", r.Spec.CPUs, "memory_mib", r.Spec.Memory, "owner", r.Owner, "attempt", r.Attempts)
	started := time.Now()
	err := c.build(ctx)
	m.capacity.creationEnded()
	if ctx.Err() != nil {
		c.interrupted(ctx)
		return
	}
	if err != nil {
		c.log.Error("creation failed", "code", clientError(err).Code, "err", err)
		c.cleanUp(ctx)
	}
	if !c.setResult(ctx, err) {
		c.interrupted(ctx)
		return
	}
	if err != nil {
		m.capacity.setMemory(r.ID, 0)
		m.opts.Hooks.CreationEnded(r.Error.Code)
	} else {
		c.log.Info("ready", "address", c.address, "after", time.Since(started).Round(time.Millisecond))
		c.job.endPhase()
		m.opts.Hooks.CreationEnded("")
		if r.Spec.Start == StartMemory {
			m.opts.Hooks.MemoryStart(c.start == StartMemory)
		}
	}
	if !c.writeResult(ctx) {
		return
	}
	m.events.setPhase(r.ID, r.Phase, nil)
	c.job.settle()
	m.callbacks.deliver(ctx, r)
}

// build lists the steps. Each may be repeated after an interruption.
func (c *creation) build(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("panic while creating", "panic", p, "stack", string(debug.Stack()))
			err = internalError()
		}
	}()
	o, r := &c.vms.opts, c.record
	if r.Attempts > maxAttempts {
		return &Error{Code: CodeAttempts, Message: fmt.Sprintf("the daemon ended %d times while it created this machine, so it does not try again", maxAttempts)}
	}
	src, err := r.Spec.source()
	if err != nil {
		return err
	}
	if err := o.Hosts.checkURL("image.url", r.Spec.Image.URL); err != nil {
		return err // the settings have changed since the request
	}
	vm := c.vms.store.machine(r)
	vm.Annotation = fmt.Sprintf("osx-builder %s %s %s", image.PublicURL(r.Spec.Image.URL), r.Spec.Image.ChecksumType, r.Spec.Image.Checksum)
	c.job.setPhase(Downloading, nil)
	gold, err := o.Images.Ensure(ctx, src, reportImage(c.job, c.log))
	if err != nil {
		return err
	}
	size, err := o.checkDisk(r.Spec, gold)
	if err != nil {
		return err
	}
	c.job.setPhase(Cloning, nil)
	c.warnWithoutMemory()
	c.warnGrown(size)
	vm.Progress = func(done, total int64) { c.job.setPhase(Cloning, &Progress{Bytes: done, Total: &total}) }
	if err := o.Driver.Clone(ctx, vm, gold.VMX); err != nil {
		return fmt.Errorf("cloning the image: %w", err)
	}
	err = c.startAndWait(ctx, vm)
	if !errors.Is(err, ErrDied) || ctx.Err() != nil {
		return err
	}
	c.log.Warn("the machine died before its guest answered; starting it once more", "err", err)
	o.Hooks.Restarted()
	return c.startAndWait(ctx, vm)
}

// startAndWait starts the machine and waits for its guest. The error wraps [ErrDied] if
// the machine's process on the host died.
func (c *creation) startAndWait(ctx context.Context, vm Machine) error {
	c.job.setPhase(Starting, nil)
	if err := c.vms.opts.Driver.Start(ctx, vm); err != nil {
		return fmt.Errorf("starting the machine: %w", err)
	}
	c.job.setPhase(Waiting, nil)
	if err := c.renewIdentity(ctx, vm); err != nil {
		return err
	}
	if c.record.Spec.ReadyWhen != nil {
		return c.waitForService(ctx, vm)
	}
	return c.waitForGuest(ctx, vm)
}

// waitForGuest waits until the guest gives a sign of life and its address is
// known. A guest that does not in time may still be well: it may have no tools,
// and need no address. One that powered itself off is not.
func (c *creation) waitForGuest(ctx context.Context, vm Machine) error {
	limit := c.record.Spec.toolsTimeout()
	var st Status
	var err error
	end := c.poll(ctx, vm, limit, func(_ context.Context, now Status, failure error) bool {
		st, err = now, failure
		return err == nil && st.Up && st.IP != ""
	})
	switch {
	case end != errTooLong:
		return end
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("waiting for the guest: %w", err)
	}
	c.warnSilent(st, limit)
	return nil
}

// errTooLong is the end of a poll whose time is over.
var errTooLong = errors.New("the time is over")

// poll inspects the machine again and again, and gives each result to ready, until that returns true. It returns an error
// if the machine cannot become ready any more, if ctx ends, or, as errTooLong, once limit is over. The limit cuts no
// inspection off: it would say nothing of a machine that is well, or that its hypervisor does not answer.
func (c *creation) poll(ctx context.Context, vm Machine, limit time.Duration, ready func(context.Context, Status, error) bool) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		st, err := c.inspect(ctx, vm)
		if err == nil {
			if err := hasFailed(st); err != nil {
				return err
			}
		}
		if ready(limited, st, err) {
			c.address = st.IP
			return nil
		}
		if sleep(limited, pollEvery) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errTooLong
	}
}

// inspect reads the machine's live state and publishes it.
func (c *creation) inspect(ctx context.Context, vm Machine) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	st, err := c.vms.opts.Driver.Inspect(ctx, vm)
	if err == nil {
		c.start = st.Start
		c.vms.events.setStatus(vm.ID, st)
		all := c.record.Warnings.join(st)
		c.logBooted(all)
		c.vms.warnings.record(c.record.Spec.Image.Checksum, vm.ID, all)
	}
	return st, err
}

// logBooted logs why a machine does not start from memory that was to.
func (c *creation) logBooted(all Warnings) {
	for _, w := range all {
		if w.Code == WarningBooted && !c.booted {
			c.booted = true
			c.log.Info("not started from memory", "why", w.Message)
		}
	}
}

// hasFailed returns the error of a machine that cannot become ready, or nil.
func hasFailed(st Status) error {
	switch {
	case st.Fault != nil:
		return st.Fault
	case st.Died:
		return &Error{Code: CodeHypervisor, Message: "the machine died before its guest answered: " + st.StoppedBecause, Err: ErrDied}
	case st.Power == PoweredOff || st.Power == "":
		return &Error{Code: CodeGuestStopped, Message: "the machine powered itself off before its guest answered; check that the image boots on this hypervisor"}
	}
	return nil
}

// warnWithoutMemory adds a warning if the machine is to start from memory, which
// its hypervisor cannot do.
func (c *creation) warnWithoutMemory() {
	if _, ok := c.vms.opts.Driver.(TemplateLister); ok || c.record.Spec.Start != StartMemory {
		return
	}
	c.record.Warnings.Add(WarningBooted, "the machine boots instead of starting from memory: the hypervisor %s cannot do that; QEMU can (-driver qemu)", c.vms.opts.Hypervisor)
}

// warnSilent adds a warning about a guest that was not ready in time.
func (c *creation) warnSilent(st Status, limit time.Duration) {
	if st.Up {
		c.log.Warn("the guest has no address in time", "limit", limit)
		c.record.Warnings.Add(WarningNoAddress, "the guest's tools answer, but it had no address within %s; check that the guest configures "+
			"its network card by DHCP, whatever the card's name is, or wait longer with tools_init_timeout", readable(limit))
		return
	}
	c.log.Warn("the guest gave no sign of life in time", "limit", limit)
	c.record.Warnings.Add(WarningGuestSilent, "the guest gave no sign of life within %s: it has no address, and no tools answer; "+
		"look at its console or its screen, or wait longer with tools_init_timeout", readable(limit))
}

// interrupted ends a creation that the stop of the daemon or a destruction
// interrupts. An orderly stop does not count as an attempt.
func (c *creation) interrupted(ctx context.Context) {
	phase, _ := c.job.current()
	c.log.Info("creation interrupted", "why", context.Cause(ctx), "phase", phase)
	if !errors.Is(context.Cause(ctx), errStopping) {
		c.vms.opts.Hooks.CreationEnded(CodeCancelled)
		return
	}
	c.record.Attempts--
	if err := c.vms.store.keep(c.record); err != nil {
		c.log.Warn("the number of attempts was not written", "err", err)
	}
}

// cleanUp removes what a failed creation left of its machine.
func (c *creation) cleanUp(ctx context.Context) {
	vm := c.vms.store.machine(c.record)
	if err := c.vms.opts.Driver.Destroy(ctx, vm); err != nil {
		c.log.Error("the failed creation left something behind; DELETE tries again", "err", err)
	}
	if _, err := os.Lstat(vm.Dir); errors.Is(err, fs.ErrNotExist) {
		c.vms.opts.Images.Release(vm.ID)
	}
}

// setResult puts into the record how the creation ended, together with the
// callback that is due now. If ctx ends first, it returns false and leaves the
// record as it was.
func (c *creation) setResult(ctx context.Context, err error) bool {
	r := c.record
	before := *r
	r.Phase, r.Error = Ready, nil
	if err != nil {
		r.Phase, r.Error = Failed, clientError(err)
	}
	r.UpdatedAt, r.Attempts = time.Now().UTC(), 0
	c.vms.store.refresh(r)
	if !c.vms.callbacks.fill(ctx, r) {
		*r = before
		return false
	}
	return true
}

// writeResult writes the record with the result. It tries until it succeeds;
// false means that ctx ended.
func (c *creation) writeResult(ctx context.Context) bool {
	for wait := pollEvery; ; wait = min(2*wait, time.Minute) {
		err := c.vms.store.keep(c.record)
		if err == nil {
			return true
		}
		c.log.Error("record not written; trying again", "err", err)
		if !sleep(ctx, wait) {
			return false
		}
	}
}
