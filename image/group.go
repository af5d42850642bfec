package image

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// reportEvery is the longest interval between two progress reports to a waiter.
const reportEvery = 250 * time.Millisecond

// errNoWaiters ends a fetch that nobody waits for any more.
var errNoWaiters = errors.New("nobody waits for the image")

// fetchGroup is the fetch of one image and everyone who waits for it.
type fetchGroup struct {
	sum    Sum
	ctx    context.Context
	cancel context.CancelCauseFunc
	meter  *meter
	done   chan struct{} // closed when gold, err and errs are final

	// Guarded by fetches.mu.
	waiters int
	urls    []string // to try, in the order in which they came
	tried   int      // of urls

	gold Gold
	err  error
	errs map[string]error // of each URL that was tried
}

// fetches are the fetches under way, one for each image.
type fetches struct {
	mu      sync.Mutex // guards what follows
	groups  map[Sum]*fetchGroup
	closed  bool
	running sync.WaitGroup
}

// close cancels every fetch and waits for their ends.
func (fs *fetches) close() {
	fs.mu.Lock()
	fs.closed = true
	for _, f := range fs.groups {
		f.cancel(ErrClosed)
	}
	fs.mu.Unlock()
	fs.running.Wait()
}

// join returns the fetch group of the checksum of a source, counts the caller among its
// waiters, and starts the fetch if there is none. now is its progress at that moment: a
// fetch that join starts gets no URL, and so makes no progress, before join returns.
func (fs *fetches) join(src Source, run func(*fetchGroup)) (f *fetchGroup, now Progress, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return nil, Progress{}, ErrClosed
	}
	f = fs.groups[src.Sum]
	if f == nil {
		f = &fetchGroup{sum: src.Sum, meter: newMeter(), done: make(chan struct{}), errs: map[string]error{}}
		f.ctx, f.cancel = context.WithCancelCause(context.Background())
		fs.groups[src.Sum] = f
		fs.running.Go(func() { run(f) })
	}
	f.waiters++
	if !slices.Contains(f.urls, src.URL) {
		f.urls = append(f.urls, src.URL)
	}
	now, _ = f.meter.get()
	return f, now, nil
}

// leave removes one waiter. When the last one leaves, the fetch stops.
func (fs *fetches) leave(f *fetchGroup) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel(errNoWaiters)
	}
}

// wait reports the progress of f until f is done or ctx ends. The first report is now, the
// progress when the caller joined, so that a caller is told of each download that it starts,
// even of one that has ended before wait is called.
func (c *Cache) wait(ctx context.Context, f *fetchGroup, now Progress, url string, report func(Progress)) (Gold, error) {
	defer c.fetches.leave(f)
	if report == nil {
		report = func(Progress) {}
	}
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	report(now)
	reported := now
	for {
		now, changed := f.meter.get()
		if now != reported {
			report(now)
			reported = now
		}
		select {
		case <-ctx.Done():
			return Gold{}, context.Cause(ctx)
		case <-f.done:
			if now, _ := f.meter.get(); f.err == nil && now.Stage != reported.Stage {
				report(now)
			}
			if err := f.errs[url]; f.err != nil && err != nil {
				return Gold{}, err
			}
			return f.gold, f.err
		case <-changed:
		case <-tick.C:
		}
	}
}

// group returns the fetch group of an image, or nil if there is none, and the number
// of its waiters.
func (fs *fetches) group(s Sum) (f *fetchGroup, waiting int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f = fs.groups[s]; f != nil {
		waiting = f.waiters
	}
	return f, waiting
}

// nextURL returns a URL that was not tried yet. If there is none, the fetch
// ends, and its group accepts no further waiter, whose URL would not be tried.
func (fs *fetches) nextURL(f *fetchGroup) (string, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.tried == len(f.urls) {
		delete(fs.groups, f.sum)
		return "", false
	}
	f.tried++
	return f.urls[f.tried-1], true
}

// remove lets another fetch of the same image begin, unless one has begun.
func (fs *fetches) remove(f *fetchGroup) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.groups[f.sum] == f {
		delete(fs.groups, f.sum)
	}
}

// runGroup fetches an image from the first URL that works.
func (c *Cache) runGroup(f *fetchGroup) {
	defer func() {
		if f.err != nil && f.ctx.Err() != nil {
			f.err = context.Cause(f.ctx)
		}
		f.cancel(nil)
		c.fetches.remove(f)
		close(f.done)
	}()
	defer func() {
		if v := recover(); v != nil {
			f.err = fmt.Errorf("fetching image %s: panic: %v\n%s", f.sum, v, debug.Stack())
		}
	}()
	var found bool
	if f.gold, found, f.err = c.gold.lookup(f.sum); found || f.err != nil {
		return
	}
	for {
		url, ok := c.fetches.nextURL(f)
		if !ok {
			return
		}
		f.gold, f.err = c.fetch(f, url)
		if f.err == nil || f.ctx.Err() != nil || errors.Is(f.err, ErrDiskFull) {
			return
		}
		f.errs[url] = f.err
		c.log.Warn("image not fetched", "image", f.sum, "url", PublicURL(url), "error", f.err)
	}
}
