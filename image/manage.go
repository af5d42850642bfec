package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Entry is a gold image as a list shows it.
type Entry struct {
	Sum          Sum
	URL          string    // its source, without user info and query
	ArchiveBytes int64     // what was downloaded
	Bytes        int64     // of its files, holes included
	DiskBytes    int64     // what they take on disk, with what was made of them
	CreatedAt    time.Time // UTC
	UsedAt       time.Time // when Ensure last returned it, UTC
	InUse        int       // machines that hold it
}

// List returns the gold images, the least recently used first. An image that is
// removed meanwhile may be missing.
func (c *Cache) List() ([]Entry, error) { return c.gold.list() }

func (g *goldStore) list() ([]Entry, error) {
	used, err := g.holds.count()
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	folders, err := os.ReadDir(filepath.Join(g.dir, goldFolder))
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	var list []Entry
	for _, folder := range folders {
		s, err := FindSum(folder.Name())
		if err != nil || !strings.Contains(folder.Name(), "-") {
			continue
		}
		if e, ok := g.entry(s, used[s]); ok {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b Entry) int { return a.UsedAt.Compare(b.UsedAt) })
	return list, nil
}

// Entry returns one gold image as [Cache.List] does, and whether it is there.
func (c *Cache) Entry(s Sum) (e Entry, ok bool, err error) {
	used, err := c.gold.holds.count()
	if err != nil {
		return e, false, fmt.Errorf("reading image %s: %w", s, err)
	}
	e, ok = c.gold.entry(s, used[s])
	return e, ok, nil
}

// entry returns an image that is held inUse times. ok is false if it is not there.
func (g *goldStore) entry(s Sum, inUse int) (e Entry, ok bool) {
	info, err := os.Lstat(g.path(s))
	if errors.Is(err, fs.ErrNotExist) {
		return e, false
	}
	e = Entry{Sum: s, InUse: inUse}
	if err == nil {
		e.UsedAt = info.ModTime().UTC()
	}
	if r, err := g.read(s); err == nil {
		e.URL, e.ArchiveBytes, e.Bytes, e.DiskBytes, e.CreatedAt = r.URL, r.ArchiveBytes, r.Bytes, r.DiskBytes, r.CreatedAt
	}
	e.DiskBytes += g.derivedBytes(s)
	return e, true
}

// Find returns an image that is there. It neither looks at the image's files nor counts as a use.
func (c *Cache) Find(s Sum) (gold Gold, ok bool) {
	r, err := c.gold.read(s)
	if err != nil {
		return Gold{}, false
	}
	return c.gold.image(r), true
}

// Remove removes a gold image. ErrInUse means that a machine needs it,
// ErrNotFound that it is not there.
func (c *Cache) Remove(s Sum) error {
	trash, err := c.gold.remove(s)
	if err != nil {
		return err
	}
	if err := removeTree(trash); err != nil {
		return fmt.Errorf("removing image %s: %w", s, err)
	}
	c.log.Info("image removed", "image", s)
	return nil
}

// remove moves an image that nobody needs out of gold/ and returns where
// it is now.
func (g *goldStore) remove(s Sum) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	used, err := g.holds.count()
	if err != nil {
		return "", fmt.Errorf("removing image %s: %w", s, err)
	}
	if n := used[s]; n > 0 {
		return "", fail(ErrInUse, nil, "image %s is needed by %d machines; remove them first", s, n)
	}
	if !exists(g.path(s)) {
		return "", fail(ErrNotFound, nil, "there is no image %s", s)
	}
	return g.discard(s)
}

// derivedPath is the folder of what others made of an image, "" if there is
// none.
func (g *goldStore) derivedPath(s Sum) string {
	path := filepath.Join(g.dir, g.derived, s.String())
	if g.derived == "" || !exists(path) {
		return ""
	}
	return path
}

// derivedBytes is the disk space of what others made of an image. A file with
// another name is the image's own and counts there. What cannot be looked at, as
// it is just being made, does not count yet.
func (g *goldStore) derivedBytes(s Sum) (total int64) {
	path := g.derivedPath(s)
	if path == "" {
		return 0
	}
	_ = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && links(path, info) == 1 {
			total += diskBytes(path, info)
		}
		return nil
	})
	return total
}

// discard moves an image out of gold/ and returns where it is now. g.gold is held.
func (g *goldStore) discard(s Sum) (string, error) {
	trash, err := os.MkdirTemp(g.dir, ".trash-")
	if err != nil {
		return "", fmt.Errorf("removing image %s: %w", s, err)
	}
	from := g.path(s)
	err = errors.Join(
		os.Chmod(from, 0o755), // #nosec G302 -- or it cannot be renamed
		rename(from, filepath.Join(trash, "image")),
		SyncPath(filepath.Dir(from)),
	)
	if derived := g.derivedPath(s); err == nil && derived != "" {
		err = rename(derived, filepath.Join(trash, "derived"))
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("removing image %s: %w", s, err), removeTree(trash))
	}
	return trash, nil
}
