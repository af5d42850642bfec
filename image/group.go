package image

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// reportEvery bounds how often a waiter is told the progress.
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

	// Guarded by Cache.mu.
	waiters int
	urls    []string // to try, in the order in which they came
	tried   int      // of urls

	gold Gold
	err  error
	errs map[string]error // of each URL that was tried
}

// join returns the fetch group of the checksum of a source, counts the caller among its
// waiters, and starts the fetch if there is none.
func (c *Cache) join(src Source) (*fetchGroup, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	f := c.groups[src.Sum]
	if f == nil {
		f = &fetchGroup{sum: src.Sum, meter: newMeter(), done: make(chan struct{}), errs: map[string]error{}}
		f.ctx, f.cancel = context.WithCancelCause(context.Background())
		c.groups[src.Sum] = f
		c.running.Go(func() { c.runGroup(f) })
	}
	f.waiters++
	for _, u := range f.urls {
		if u == src.URL {
			return f, nil
		}
	}
	f.urls = append(f.urls, src.URL)
	return f, nil
}

// leave removes one waiter. When the last one leaves, the fetch stops.
func (c *Cache) leave(f *fetchGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel(errNoWaiters)
	}
}

// wait reports the progress of f until it is done or ctx ends.
func (c *Cache) wait(ctx context.Context, f *fetchGroup, url string, report func(Progress)) (Gold, error) {
	defer c.leave(f)
	if report == nil {
		report = func(Progress) {}
	}
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	var told Progress
	for {
		now, changed := f.meter.get()
		if now != told {
			report(now)
			told = now
		}
		select {
		case <-ctx.Done():
			return Gold{}, context.Cause(ctx)
		case <-f.done:
			if now, _ := f.meter.get(); f.err == nil && now.Stage != told.Stage {
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
func (c *Cache) group(s Sum) (f *fetchGroup, waiting int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f = c.groups[s]; f != nil {
		waiting = f.waiters
	}
	return f, waiting
}

// nextURL returns a URL that was not tried yet. If there is none, the fetch
// ends, and its group accepts no further waiter, whose URL would not be tried.
func (c *Cache) nextURL(f *fetchGroup) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.tried == len(f.urls) {
		delete(c.groups, f.sum)
		return "", false
	}
	f.tried++
	return f.urls[f.tried-1], true
}

// removeGroup lets another fetch of the same image begin, unless one has begun.
func (c *Cache) removeGroup(f *fetchGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groups[f.sum] == f {
		delete(c.groups, f.sum)
	}
}

// runGroup fetches an image from the first URL that works.
func (c *Cache) runGroup(f *fetchGroup) {
	defer func() {
		if f.err != nil && f.ctx.Err() != nil {
			f.err = context.Cause(f.ctx)
		}
		f.cancel(nil)
		c.removeGroup(f)
		close(f.done)
	}()
	defer func() {
		if v := recover(); v != nil {
			f.err = fmt.Errorf("fetching image %s: panic: %v\n%s", f.sum, v, debug.Stack())
		}
	}()
	var found bool
	if f.gold, found, f.err = c.lookup(f.sum); found || f.err != nil {
		return
	}
	for {
		url, ok := c.nextURL(f)
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
