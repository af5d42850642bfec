package vm

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"osx-builder/image"
)

// maxPulls bounds the pulls under way. Each takes a connection, a core and disk space.
const maxPulls = 16

// errRemoved cancels the pull of an image that is removed.
var errRemoved = errors.New("the image is being removed")

// pull is a pull under way.
type pull struct {
	cancel   context.CancelCauseFunc
	phase    ImagePhase
	progress *Progress
	written  chan struct{} // closed once the record is on disk, or err is set
	err      error         // of writing the record
	done     chan struct{} // closed once the pull has ended
}

func newPull() *pull {
	return &pull{phase: ImageAccepted, written: make(chan struct{}), done: make(chan struct{}), cancel: func(error) {}}
}

// Pull gets an image into the cache, so that machines of it start without a download: it downloads, verifies and unpacks
// it, and lets the hypervisor prepare it. It returns once the pull is on disk, which then survives a crash. Creations
// that need the image meanwhile share the work. Repeating a pull that is under way, or of an image that is there, changes
// nothing; one that failed is tried again.
func (i *Images) Pull(ctx context.Context, q ImageRequest) (CachedImage, error) {
	checked, sum, err := i.check(q)
	if err != nil {
		return CachedImage{}, err
	}
	if c, err := i.Get(sum.String()); err == nil && c.Phase == ImageReady {
		return c, nil
	}
	now := time.Now().UTC()
	r := &imageRecord{Version: recordVersion, Image: checked, Phase: ImageAccepted, CreatedAt: now, UpdatedAt: now}
	p, isNew, err := i.begin(sum, r)
	if err != nil {
		return CachedImage{}, err
	}
	if isNew {
		p.err = i.write(sum, *r)
		close(p.written)
		if p.err != nil {
			i.end(sum, p, false)
			return CachedImage{}, p.err
		}
		if !i.start(sum, r, p) { // the next Manager continues it
			i.end(sum, p, true)
			return CachedImage{}, shuttingDown()
		}
	}
	select {
	case <-p.written:
	case <-ctx.Done():
		return CachedImage{}, ctx.Err()
	}
	if p.err != nil {
		return CachedImage{}, p.err
	}
	return i.Get(sum.String())
}

// ImageRequest is a request to pull an image, as its JSON says it.
type ImageRequest struct {
	URL          string `json:"url"`
	Checksum     string `json:"checksum"`
	ChecksumType string `json:"checksum_type"`

	Invalid []*Error `json:"-"` // fields that could not be read
}

// check returns the image of a request in canonical form. Its error names all invalid fields.
func (i *Images) check(q ImageRequest) (Image, image.Sum, error) {
	p := problems{list: q.Invalid}
	checked := parseImage("", Image{URL: q.URL, Checksum: q.Checksum, ChecksumType: q.ChecksumType}, &p)
	p.add(i.hosts.checkURL("url", checked.URL))
	if err := InvalidFields(p.list); err != nil {
		return checked, image.Sum{}, err
	}
	sum, err := image.ParseSum(checked.ChecksumType, checked.Checksum)
	return checked, sum, err
}

// begin reserves the pull of an image. If one is under way, begin returns that.
func (i *Images) begin(sum image.Sum, r *imageRecord) (p *pull, isNew bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.pulls[sum]; p != nil {
		return p, false, nil
	}
	if len(i.pulls) >= maxPulls {
		return nil, false, &Error{Code: CodeBusy, Message: fmt.Sprintf("%d images are being pulled, which is the limit; try again later", maxPulls)}
	}
	if before := i.records[sum]; before != nil {
		r.Pinned, r.CreatedAt = before.Pinned, before.CreatedAt
	}
	p = newPull()
	i.pulls[sum], i.records[sum] = p, r
	return p, true, nil
}

// start starts the goroutine of a pull. It returns false after the Manager's end.
func (i *Images) start(sum image.Sum, r *imageRecord, p *pull) bool {
	ctx, cancel := context.WithCancelCause(i.tasks.ctx)
	i.mu.Lock()
	p.cancel = cancel
	i.mu.Unlock()
	return i.tasks.run(func() {
		defer cancel(nil)
		err := i.get(ctx, r.Image, sum, p)
		i.finish(ctx, sum, r, p, err)
	})
}

// get gets the image.
func (i *Images) get(ctx context.Context, source Image, sum image.Sum, p *pull) (err error) {
	defer func() {
		if v := recover(); v != nil {
			i.log.Error("panic while pulling an image", "image", sum, "panic", v, "stack", string(debug.Stack()))
			err = internalError()
		}
	}()
	i.log.Info("pulling", "image", sum, "url", image.PublicURL(source.URL))
	started := time.Now()
	gold, err := i.cache.Ensure(ctx, image.Source{URL: source.URL, Sum: sum}, func(got image.Progress) { i.setProgress(p, got) })
	if err != nil {
		return err
	}
	if d, ok := i.driver.(ImagePreparer); ok {
		i.mu.Lock()
		p.phase, p.progress = ImagePreparing, nil
		i.mu.Unlock()
		if err := d.PrepareImage(ctx, gold.VMX); err != nil {
			return err
		}
	}
	i.log.Info("pulled", "image", sum, "after", time.Since(started).Round(time.Millisecond))
	return nil
}

func (i *Images) setProgress(p *pull, got image.Progress) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p.phase, p.progress = ImageDownloading, imageProgress(got)
	if got.Stage == image.Unpacking {
		p.phase = ImageUnpacking
	}
}

// finish writes down how a pull ended. One that the stop of the daemon interrupts is continued by the next daemon.
func (i *Images) finish(ctx context.Context, sum image.Sum, r *imageRecord, p *pull, err error) {
	if ctx.Err() != nil {
		stopping := errors.Is(context.Cause(ctx), errStopping)
		if stopping {
			i.uncount(sum, r)
		}
		i.end(sum, p, stopping)
		return
	}
	i.mu.Lock()
	r.Phase, r.Error, r.Attempts, r.UpdatedAt = ImageReady, nil, 0, time.Now().UTC()
	if err != nil {
		r.Phase, r.Error = ImageFailed, clientError(err)
	}
	keep, copied := r.Pinned || err != nil, *r
	i.mu.Unlock()
	if err != nil {
		i.log.Error("pull failed", "image", sum, "code", copied.Error.Code, "err", err)
	}
	if keep {
		if err := i.write(sum, copied); err != nil {
			i.log.Error("the result of a pull was not written; the next daemon pulls again", "image", sum, "err", err)
		}
	}
	i.end(sum, p, keep)
	i.pools.hint() // one may have waited for the image
	i.forgetOldFailures()
}

// end removes a pull that has ended, with its record unless keep is true.
func (i *Images) end(sum image.Sum, p *pull, keep bool) {
	if !keep {
		if err := i.removeRecord(sum); err != nil {
			i.log.Error("the record of a pull was not removed", "image", sum, "err", err)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pulls, sum)
	if !keep {
		delete(i.records, sum)
	}
	close(p.done)
}

// Wait returns an image, named as for Get, once no pull of it is under way, or after d.
func (i *Images) Wait(ctx context.Context, ref string, d time.Duration) (CachedImage, error) {
	c, err := i.Get(ref)
	if err != nil || d <= 0 {
		return c, err
	}
	sum := image.Sum{Type: c.ChecksumType, Hex: c.Checksum}
	i.mu.Lock()
	p := i.pulls[sum]
	i.mu.Unlock()
	if p == nil {
		return i.Get(sum.String()) // it may have ended after c was read
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	case <-i.tasks.ctx.Done():
	case <-ctx.Done():
		return CachedImage{}, ctx.Err()
	}
	return i.Get(sum.String())
}

// forget cancels the pull of an image and removes its record and its pin. known reports whether there was one.
func (i *Images) forget(ctx context.Context, sum image.Sum) (known bool, err error) {
	i.mu.Lock()
	p, r := i.pulls[sum], i.records[sum]
	if p != nil {
		p.cancel(errRemoved)
	}
	i.mu.Unlock()
	if p != nil {
		select {
		case <-p.done:
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
	if r == nil {
		return false, nil
	}
	i.mu.Lock()
	delete(i.records, sum)
	i.mu.Unlock()
	i.cache.Release(pinHolder + sum.String())
	return true, i.removeRecord(sum)
}
