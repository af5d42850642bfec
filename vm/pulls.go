package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"osx-builder/image"
)

const (
	// maxPulls bounds the pulls under way. Each takes a connection, a core and disk space.
	maxPulls = 16

	// maxFailedPulls bounds the failed pulls that are remembered; the oldest are forgotten.
	maxFailedPulls = 100

	// pinHolder begins the name under which a pin holds its image in the cache.
	pinHolder = "pin "
)

// errRemoved cancels the pull of an image that is removed.
var errRemoved = errors.New("the image is being removed")

// imageRecord is what is on disk about an image that a client pulls or has pinned, in <type>-<hex>.json. It is written
// before a pull is accepted, so that a crash loses none. A pull that succeeded leaves no record, unless the image is
// pinned.
type imageRecord struct {
	Version   int        `json:"version"`
	Image     Image      `json:"image"`
	Phase     ImagePhase `json:"phase"` // ImageAccepted, ImageReady or ImageFailed
	Error     *Error     `json:"error,omitempty"`
	Pinned    bool       `json:"pinned"`
	Attempts  int        `json:"attempts"`
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
}

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

func (r *imageRecord) document(p *pull) CachedImage {
	c := CachedImage{
		Checksum: r.Image.Checksum, ChecksumType: r.Image.ChecksumType, URL: image.PublicURL(r.Image.URL),
		CreatedAt: r.CreatedAt, LastUsedAt: r.UpdatedAt, Phase: r.Phase, Error: r.Error, Pinned: r.Pinned,
	}
	if p != nil {
		c.Phase, c.Progress, c.Error = p.phase, p.progress, nil
	}
	return c
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
	i.forgetOldFailures()
}

// uncount takes back an attempt that the orderly stop of the daemon interrupts.
func (i *Images) uncount(sum image.Sum, r *imageRecord) {
	i.mu.Lock()
	counted := r.Attempts > 0
	r.Attempts = max(0, r.Attempts-1)
	copied := *r
	i.mu.Unlock()
	if !counted {
		return
	}
	if err := i.write(sum, copied); err != nil {
		i.log.Warn("the number of attempts was not written", "image", sum, "err", err)
	}
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

// forgetOldFailures removes the records of the oldest failed pulls, if there are too many.
func (i *Images) forgetOldFailures() {
	i.mu.Lock()
	var failed []image.Sum
	for sum, r := range i.records {
		if r.Phase == ImageFailed && !r.Pinned && i.pulls[sum] == nil {
			failed = append(failed, sum)
		}
	}
	slices.SortFunc(failed, func(a, b image.Sum) int { return i.records[a].UpdatedAt.Compare(i.records[b].UpdatedAt) })
	failed = failed[:max(0, len(failed)-maxFailedPulls)]
	for _, sum := range failed {
		delete(i.records, sum)
	}
	i.mu.Unlock()
	for _, sum := range failed {
		if err := i.removeRecord(sum); err != nil {
			i.log.Error("the record of a failed pull was not removed", "image", sum, "err", err)
		}
	}
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
		return c, nil
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

// Pin sets whether an image, named as for Get, is exempt from being removed to make room. An image that is still being
// pulled can be pinned too.
func (i *Images) Pin(ref string, pinned bool) (CachedImage, error) {
	c, err := i.Get(ref)
	if err != nil || c.Pinned == pinned {
		return c, err
	}
	sum := image.Sum{Type: c.ChecksumType, Hex: c.Checksum}
	if pinned {
		i.cache.Hold(pinHolder+sum.String(), sum)
	}
	i.mu.Lock()
	r, under := i.records[sum], i.pulls[sum] != nil
	if r == nil {
		now := time.Now().UTC()
		r = &imageRecord{
			Version: recordVersion, Image: Image{URL: c.URL, Checksum: c.Checksum, ChecksumType: c.ChecksumType},
			Phase: c.Phase, CreatedAt: now, UpdatedAt: now,
		}
		i.records[sum] = r
	}
	r.Pinned = pinned
	copied := *r
	keep := pinned || under || r.Phase == ImageFailed
	if !keep {
		delete(i.records, sum)
	}
	i.mu.Unlock()
	if !pinned {
		i.cache.Release(pinHolder + sum.String())
	}
	if keep {
		err = i.write(sum, copied)
	} else {
		err = i.removeRecord(sum)
	}
	if err != nil {
		return CachedImage{}, err
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

func (i *Images) path(sum image.Sum) string { return filepath.Join(i.dir, sum.String()+recordSuffix) }

func (i *Images) write(sum image.Sum, r imageRecord) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := WriteFile(i.path(sum), append(b, '\n')); err != nil {
		return storeError(sum.String(), err)
	}
	return nil
}

func (i *Images) removeRecord(sum image.Sum) error {
	if err := os.Remove(i.path(sum)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return SyncPath(i.dir)
}

// load reads the records that an earlier Manager left and holds the pinned images. It removes temporary files of
// [WriteFile]. A record that cannot be read is logged and left alone.
func (i *Images) load() error {
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return fmt.Errorf("creating the folder of the images' records: %w", err)
	}
	files, err := os.ReadDir(i.dir)
	if err != nil {
		return fmt.Errorf("reading the images' records: %w", err)
	}
	for _, f := range files {
		if f.Type().IsRegular() && temporaryPull.MatchString(f.Name()) {
			if err := os.Remove(filepath.Join(i.dir, f.Name())); err != nil {
				i.log.Error("litter not removed", "path", filepath.Join(i.dir, f.Name()), "err", err)
			}
			continue
		}
		name, ok := strings.CutSuffix(f.Name(), recordSuffix)
		sum, err := image.FindSum(name)
		if !ok || err != nil || !strings.Contains(name, "-") {
			continue
		}
		r, err := i.read(sum)
		if err != nil {
			i.log.Error("the record of an image cannot be read", "file", i.path(sum), "err", err)
			continue
		}
		i.records[sum] = r
		if r.Pinned {
			i.cache.Hold(pinHolder+sum.String(), sum)
		}
	}
	return nil
}

func (i *Images) read(sum image.Sum) (*imageRecord, error) {
	b, err := os.ReadFile(i.path(sum))
	if err != nil {
		return nil, err
	}
	var r imageRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Version > recordVersion {
		return nil, errNewer
	}
	if r.Image.Checksum != sum.Hex || r.Image.ChecksumType != sum.Type || !slices.Contains([]ImagePhase{ImageAccepted, ImageReady, ImageFailed}, r.Phase) {
		return nil, errCorrupt
	}
	return &r, nil
}

// resume continues the pulls that were under way when the earlier Manager ended.
func (i *Images) resume() {
	begun := make(map[image.Sum]*pull)
	for sum, r := range i.records { // no pull runs yet
		if r.Phase == ImageAccepted && i.countAttempt(sum, r) {
			begun[sum] = newPull()
			close(begun[sum].written)
		}
	}
	maps.Copy(i.pulls, begun)
	records := maps.Clone(i.records) // a pull that ends changes the Images'
	for sum, p := range begun {
		if !i.start(sum, records[sum], p) {
			i.end(sum, p, true)
		}
	}
}

// countAttempt writes down that a pull is tried once more. It returns false, and fails the pull, if that was often enough.
func (i *Images) countAttempt(sum image.Sum, r *imageRecord) bool {
	r.Attempts++
	if r.Attempts > maxAttempts {
		r.Phase, r.Error = ImageFailed, &Error{
			Code: CodeAttempts, Message: fmt.Sprintf("the daemon ended %d times while it pulled this image; POST /images tries again", maxAttempts),
		}
	}
	if err := i.write(sum, *r); err != nil {
		i.log.Error("the number of attempts was not written", "image", sum, "err", err)
	}
	return r.Phase == ImageAccepted
}
