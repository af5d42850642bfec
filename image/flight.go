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

// errUnwanted ends a flight that nobody waits for any more.
var errUnwanted = errors.New("nobody waits for the image")

// flight is one image on its way, and all who wait for it.
type flight struct {
	sum    Sum
	ctx    context.Context
	cancel context.CancelCauseFunc
	meter  *meter
	done   chan struct{} // closed when gold, err and errs are final

	// Guarded by Cache.mu.
	waiting int
	urls    []string // to try, in the order in which they came
	tried   int      // of urls

	gold Gold
	err  error
	errs map[string]error // of each URL that was tried
}

// join returns the flight of a source's checksum, with the caller counted among
// those who wait, and starts it if there is none.
func (c *Cache) join(src Source) (*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	f := c.flights[src.Sum]
	if f == nil {
		f = &flight{sum: src.Sum, meter: newMeter(), done: make(chan struct{}), errs: map[string]error{}}
		f.ctx, f.cancel = context.WithCancelCause(context.Background())
		c.flights[src.Sum] = f
		c.running.Go(func() { c.fly(f) })
	}
	f.waiting++
	for _, u := range f.urls {
		if u == src.URL {
			return f, nil
		}
	}
	f.urls = append(f.urls, src.URL)
	return f, nil
}

// leave takes one waiter off. The last one stops the flight.
func (c *Cache) leave(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel(errUnwanted)
	}
}

// wait reports the progress of f until it is done or ctx ends.
func (c *Cache) wait(ctx context.Context, f *flight, url string, report func(Progress)) (Gold, error) {
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

// flight returns the flight of an image, nil if there is none, and how many
// wait for it.
func (c *Cache) flight(s Sum) (f *flight, waiting int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f = c.flights[s]; f != nil {
		waiting = f.waiting
	}
	return f, waiting
}

// nextURL returns a URL that was not tried yet. If there is none, the flight
// ends, and takes nobody on any more whose URL would not be tried.
func (c *Cache) nextURL(f *flight) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.tried == len(f.urls) {
		delete(c.flights, f.sum)
		return "", false
	}
	f.tried++
	return f.urls[f.tried-1], true
}

// unlist makes room for another flight of the same image, unless there is one.
func (c *Cache) unlist(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.sum] == f {
		delete(c.flights, f.sum)
	}
}

// fly brings an image, from the first URL that works.
func (c *Cache) fly(f *flight) {
	defer func() {
		if f.err != nil && f.ctx.Err() != nil {
			f.err = context.Cause(f.ctx)
		}
		f.cancel(nil)
		c.unlist(f)
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
