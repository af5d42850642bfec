package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// trim evicts images until they fit Options.CacheBytes. keep stays.
func (c *Cache) trim(keep Sum) {
	if c.opts.CacheBytes <= 0 {
		return
	}
	for {
		list, err := c.List()
		if err != nil {
			c.log.Warn("image cache not trimmed", "error", err)
			return
		}
		var total int64
		for _, e := range list {
			total += e.DiskBytes
		}
		if total <= c.opts.CacheBytes {
			return
		}
		evicted, err := c.evictImage("the cache is larger than its limit of "+humanize.IBytes(uint64(c.opts.CacheBytes)), keep)
		if err != nil || !evicted {
			c.log.Warn("image cache stays over its limit", "bytes", total, "limit", c.opts.CacheBytes, "error", err)
			return
		}
	}
}

// evict removes what may go first, and reports whether there was something: a
// download that nobody resumes, otherwise an image that no machine needs.
// Nothing goes unless want bytes can be had in that way: a server that lies
// about its image's size must not empty the cache.
func (c *Cache) evict(want int64) (bool, error) {
	parts, err := c.idleParts()
	if err != nil {
		return false, err
	}
	images, err := c.List()
	if err != nil {
		return false, err
	}
	var evictable int64
	for _, p := range parts {
		evictable += p.bytes
	}
	for _, e := range images {
		if e.InUse == 0 {
			evictable += e.DiskBytes
		}
	}
	const why = "the disk is short of space"
	switch {
	case evictable < want:
		return false, nil
	case len(parts) > 0:
		return c.evictPart(parts[0].sum, why)
	default:
		return c.evictImage(why, Sum{})
	}
}

// evictImage removes the least recently used image that no machine needs.
func (c *Cache) evictImage(why string, keep Sum) (bool, error) {
	trash, s, err := c.gold.discardLeastRecent(keep)
	if err != nil || trash == "" {
		return false, err
	}
	if err := removeTree(trash); err != nil {
		return false, fmt.Errorf("evicting image %s: %w", s, err)
	}
	c.log.Info("image evicted", "image", s, "reason", why)
	return true, nil
}

// discardLeastRecent moves the image to evict out of gold/ and returns where it
// is now.
func (g *goldStore) discardLeastRecent(keep Sum) (string, Sum, error) {
	list, err := g.list()
	if err != nil {
		return "", Sum{}, err
	}
	for _, e := range list {
		if e.InUse > 0 || e.Sum == keep {
			continue
		}
		trash, err := g.remove(e.Sum)
		if errors.Is(err, ErrInUse) || errors.Is(err, ErrNotFound) {
			continue // since the list was made
		}
		return trash, e.Sum, err
	}
	return "", Sum{}, nil
}

// evictPart removes a download unless somebody has just gone on with it.
func (c *Cache) evictPart(s Sum, why string) (bool, error) {
	f, trash, err := c.removeFromDownloads(s)
	if err == nil && f == nil {
		err = removeIfThere(trash)
	}
	switch {
	case err != nil:
		return false, fmt.Errorf("evicting download %s: %w", s, err)
	case f == nil:
		c.log.Info("download evicted", "image", s, "reason", why)
	}
	return true, nil // a fetch has begun: look again
}

// RemoveDownload removes what is on disk of an image's download, for a caller
// whose machine no longer needs it. A download that others wait for, or whose
// image a machine needs, stays. One that is being stopped is waited for.
func (c *Cache) RemoveDownload(ctx context.Context, s Sum) error {
	for {
		f, waiting := c.fetches.group(s)
		switch {
		case waiting > 0, f == nil && !exists(c.partPath(s)) && !exists(c.partPath(s)+".json"):
			return nil
		case f != nil:
			select {
			case <-f.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		used, err := c.gold.holds.count()
		if err != nil {
			return fmt.Errorf("removing download %s: %w", s, err)
		}
		if used[s] > 0 {
			return nil
		}
		if _, err := c.evictPart(s, "the machine that needed it is gone"); err != nil {
			return err
		}
	}
}

// removeFromDownloads moves a download to a place that the next Open sweeps and
// returns that place, because unlinking a large file takes long. A download that
// is under way stays, and its group is returned.
func (c *Cache) removeFromDownloads(s Sum) (f *fetchGroup, trash string, err error) {
	c.fetches.mu.Lock()
	defer c.fetches.mu.Unlock()
	if f := c.fetches.groups[s]; f != nil {
		return f, "", nil
	}
	trash = filepath.Join(c.dir, ".trash-"+s.String()+".part")
	if err := removeIfThere(c.partPath(s) + ".json"); err != nil {
		return nil, "", err
	}
	if err := rename(c.partPath(s), trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	return nil, trash, nil
}

// expireParts removes the downloads that nobody has gone on with for long.
func (c *Cache) expireParts() {
	parts, err := c.idleParts()
	for _, p := range parts {
		if err == nil && time.Since(p.at) > keepParts {
			_, err = c.evictPart(p.sum, "nobody went on with it for long")
		}
	}
	if err != nil {
		c.log.Warn("old downloads not removed", "error", err)
	}
}

// leftover is a download on disk that is not under way.
type leftover struct {
	sum   Sum
	bytes int64
	at    time.Time // of its last byte
}

// idleParts returns the downloads that nobody goes on with and that no machine
// needs, the oldest first.
func (c *Cache) idleParts() ([]leftover, error) {
	used, err := c.gold.holds.count()
	if err != nil {
		return nil, fmt.Errorf("listing downloads: %w", err)
	}
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("listing downloads: %w", err)
	}
	c.fetches.mu.Lock()
	defer c.fetches.mu.Unlock()
	var list []leftover
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".part")
		s, err := FindSum(name)
		if !ok || err != nil || c.fetches.groups[s] != nil || used[s] > 0 {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing downloads: %w", err)
		}
		list = append(list, leftover{sum: s, bytes: diskBytes(filepath.Join(c.dir, f.Name()), info), at: info.ModTime()})
	}
	slices.SortFunc(list, func(a, b leftover) int { return a.at.Compare(b.at) })
	return list, nil
}

func (c *Cache) partPath(s Sum) string { return filepath.Join(c.dir, s.String()+".part") }
