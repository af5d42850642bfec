package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"osx-builder/image"
)

// pollEvery is how often a booting machine is asked for a sign of life.
const pollEvery = 200 * time.Millisecond

// create is the job that makes a machine, settles its record and sends its
// callback. A failure leaves nothing of the machine but the record; an
// interruption leaves all for the next owner.
func (m *Manager) create(ctx context.Context, j *job, r *record) {
	log := m.logOf(r)
	log.Info("creating", "image", plainURL(r.Spec.Image.URL), "cpus", r.Spec.CPUs, "memory_mib", r.Spec.Memory, "attempt", r.Attempts)
	started := time.Now()
	err := m.build(ctx, j, r)
	m.release()
	if ctx.Err() != nil {
		phase, _ := j.seen()
		log.Info("creation interrupted", "why", context.Cause(ctx), "phase", phase)
		if errors.Is(context.Cause(ctx), errStopping) {
			m.uncount(r)
		} else {
			m.Hooks.Created(CodeCancelled)
		}
		return
	}
	if err != nil {
		r.Phase, r.Error = Failed, clientError(err)
		log.Error("creation failed", "code", r.Error.Code, "err", err)
		m.discard(ctx, r)
		m.promise(r.ID, 0)
		m.Hooks.Created(r.Error.Code)
	} else {
		r.Phase, r.Error = Ready, nil
		log.Info("ready", "after", time.Since(started).Round(time.Millisecond))
		j.pass()
		m.Hooks.Created("")
	}
	if !m.settle(ctx, r) {
		return
	}
	m.feed.enter(r.ID, r.Phase, nil)
	j.settle()
	m.deliver(ctx, r)
}

// build lists the steps. Each may be repeated after an interruption.
func (m *Manager) build(ctx context.Context, j *job, r *record) (err error) {
	defer func() {
		if p := recover(); p != nil {
			m.logOf(r).Error("panic while creating", "panic", p, "stack", string(debug.Stack()))
			err = &Error{Code: CodeInternal, Message: "internal error; the daemon's log has the details"}
		}
	}()
	if r.Attempts > maxAttempts {
		return &Error{Code: CodeAttempts, Message: fmt.Sprintf("the daemon ended %d times while it created this machine, so it does not try again", maxAttempts)}
	}
	src, err := r.Spec.source()
	if err != nil {
		return err
	}
	if err := m.Hosts.checkURL("image.url", r.Spec.Image.URL); err != nil {
		return err // the settings are others than when it was asked for
	}
	vm := m.machine(r)
	vm.Annotation = fmt.Sprintf("osx-builder %s %s %s", plainURL(r.Spec.Image.URL), r.Spec.Image.ChecksumType, r.Spec.Image.Checksum)
	j.enter(Downloading)
	gold, err := m.Images.Ensure(ctx, src, m.reporter(r.ID, j))
	if err != nil {
		return err
	}
	j.enter(Cloning)
	if err := m.Driver.Clone(ctx, vm, gold.VMX); err != nil {
		return fmt.Errorf("cloning the image: %w", err)
	}
	j.enter(Starting)
	if err := m.Driver.Start(ctx, vm); err != nil {
		return fmt.Errorf("starting the machine: %w", err)
	}
	j.enter(Waiting)
	return m.await(ctx, r, vm)
}

// await holds until the guest gives a sign of life and its address is known. A
// guest that does not do so in time may still be well: it may have no tools and
// need no address. One that switched itself off is not.
func (m *Manager) await(ctx context.Context, r *record, vm Machine) error {
	limit := r.Spec.toolsTimeout()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		st, err := m.Driver.Inspect(limited, vm)
		if err == nil {
			m.feed.saw(vm.ID, st.Power)
		}
		switch {
		case err == nil && st.Up && st.IP != "":
			return nil
		case err == nil && (st.Power == PoweredOff || st.Power == ""):
			return &Error{Code: CodeGuestStopped, Message: "the machine powered itself off before its guest answered; see that the image boots on this hypervisor"}
		}
		if pause(limited, pollEvery) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("waiting for the guest: %w", err)
		}
		m.logOf(r).Warn("the guest gave no sign of life in time", "limit", limit)
		return nil
	}
}

// uncount takes back the attempt that an orderly stop interrupted.
func (m *Manager) uncount(r *record) {
	r.Attempts--
	if err := m.store.keep(r); err != nil {
		m.logOf(r).Warn("attempt not taken back", "err", err)
	}
}

// discard removes what a failed creation left of its machine.
func (m *Manager) discard(ctx context.Context, r *record) {
	if err := m.Driver.Destroy(ctx, m.machine(r)); err != nil {
		m.logOf(r).Error("failed creation left something behind; DELETE tries again", "err", err)
	}
	if _, err := os.Lstat(m.machine(r).Dir); errors.Is(err, fs.ErrNotExist) {
		m.Images.Release(r.ID)
	}
}

// settle writes down how the making ended, together with the callback that
// this makes due. It tries until it is on disk; false means interrupted.
func (m *Manager) settle(ctx context.Context, r *record) bool {
	r.UpdatedAt = time.Now().UTC()
	r.Attempts = 0
	m.store.refresh(r)
	m.fill(ctx, r)
	for wait := pollEvery; ; wait = min(2*wait, time.Minute) {
		err := m.store.keep(r)
		if err == nil {
			return true
		}
		m.logOf(r).Error("record not written; trying again", "err", err)
		if !pause(ctx, wait) {
			return false
		}
	}
}

// clientError makes of any error what a client may see of it.
func clientError(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	for _, c := range []struct {
		is   error
		code Code
	}{
		{image.ErrDiskFull, CodeDiskFull},
		{image.ErrTooLarge, CodeImageTooLarge},
		{image.ErrArchiveTooLarge, CodeImageArchive},
		{image.ErrTooManyEntries, CodeImageEntries},
		{image.ErrPathTooDeep, CodeImageDepth},
		{image.ErrPathTooLong, CodeImagePath},
		{image.ErrRatioTooHigh, CodeImageRatio},
		{image.ErrStalled, CodeImageStalled},
		{image.ErrUnsafe, CodeImageUnsafe},
		{image.ErrInvalid, CodeImageInvalid},
		{image.ErrChecksum, CodeImageChecksum},
		{image.ErrDownload, CodeImageDownload},
	} {
		if errors.Is(err, c.is) {
			return &Error{Code: c.code, Message: err.Error(), Err: err}
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		return &Error{Code: CodeDiskFull, Message: "the disk of the data folder is full: " + err.Error(), Err: err}
	}
	return &Error{Code: CodeHypervisor, Message: err.Error(), Err: err}
}
