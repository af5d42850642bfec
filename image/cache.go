package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// goldFolder is the folder of finished images below the Cache's own.
const goldFolder = "gold"

// Cache keeps gold images in a folder. Its methods may be called at once.
type Cache struct {
	dir    string
	opts   Options
	limits Limits
	log    *slog.Logger
	client *http.Client

	gold    *goldStore
	fetches *fetches

	// evicting is held by who makes room on the disk, so that two who are short
	// of space do not give up while the other is still removing.
	evicting sync.Mutex
}

// Open opens the Cache in dir, which it creates if need be. What an earlier
// process left unfinished is removed, except downloads, which are resumed.
func Open(dir string, o Options) (*Cache, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the image cache: %w", err)
	}
	c := &Cache{
		dir: dir, opts: o, limits: o.Limits.withDefaults(), log: o.Log,
		client: newClient(o), fetches: &fetches{groups: map[Sum]*fetchGroup{}},
	}
	c.gold = &goldStore{dir: dir, derived: o.Derived, holds: newHolds()}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.opts.Downloaded == nil {
		c.opts.Downloaded = func(int64, error) {}
	}
	if c.opts.UserAgent == "" {
		c.opts.UserAgent = "osx-builder"
	}
	if err := os.MkdirAll(filepath.Join(dir, goldFolder), 0o755); err != nil { // #nosec G301 -- a hypervisor of another user reads it
		return nil, fmt.Errorf("opening the image cache: %w", err)
	}
	if err := c.sweep(); err != nil {
		return nil, fmt.Errorf("opening the image cache: %w", err)
	}
	return c, nil
}

// Close stops what is under way, waits for it and leaves it in a state that
// the next Open goes on from. Waiting Ensures return ErrClosed.
func (c *Cache) Close() error {
	c.fetches.close()
	c.client.CloseIdleConnections()
	return nil
}

// Ensure returns the image that src names, and gets it first if it is not
// there. However many ask for one checksum at once, there is one download. Each caller is
// informed of the progress by calls of report (which may be nil) from its own
// goroutine, at most four a second beside one for each new stage; an image that is already there
// reports none.
//
// A caller whose ctx ends leaves, with the context's cause, without stopping
// the others; when the last one has left, the work stops and the download is
// kept for the next. A failure ends all who waited for it and nothing else:
// the next Ensure tries again. Callers that name different URLs for one
// checksum share too; if one URL fails, another caller's is tried.
func (c *Cache) Ensure(ctx context.Context, src Source, report func(Progress)) (Gold, error) {
	if err := src.check(); err != nil {
		return Gold{}, err
	}
	for {
		if err := context.Cause(ctx); err != nil {
			return Gold{}, err
		}
		gold, found, err := c.gold.lookup(src.Sum)
		if found || err != nil {
			return gold, err
		}
		f, now, err := c.fetches.join(src, c.runGroup)
		if err != nil {
			return Gold{}, err
		}
		gold, err = c.wait(ctx, f, now, src.URL, report)
		if !errors.Is(err, errNoWaiters) {
			return gold, err
		}
	}
}

// Lookup returns the image if it is there, like [Cache.Ensure], and otherwise false.
func (c *Cache) Lookup(s Sum) (Gold, bool, error) { return c.gold.lookup(s) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
