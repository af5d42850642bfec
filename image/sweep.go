package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// keepParts is how long a download that nobody goes on with stays.
const keepParts = 7 * 24 * time.Hour

// sweep removes what has no final name: all that begins with a dot, downloads
// of images that are there or that nobody has gone on with for long, and
// states without a download.
func (c *Cache) sweep() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".part") && !strings.HasSuffix(name, ".part.json") {
			continue
		}
		litter, err := c.isLitter(e)
		if err != nil {
			return err
		}
		if litter {
			if err := removeTree(filepath.Join(c.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cache) isLitter(e fs.DirEntry) (bool, error) {
	name := e.Name()
	if strings.HasPrefix(name, ".") {
		return true, nil
	}
	part := strings.TrimSuffix(name, ".json")
	if exists(filepath.Join(c.dir, goldFolder, strings.TrimSuffix(part, ".part"))) {
		return true, nil
	}
	info, err := os.Lstat(filepath.Join(c.dir, part))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at a download: %w", err)
	}
	return time.Since(info.ModTime()) > keepParts, nil
}

// removeTree removes a file or a folder with all that is in it, read-only
// folders too.
func removeTree(path string) error {
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700) // #nosec G302
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(path))
}
