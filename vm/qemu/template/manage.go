package template

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Usage is a template with what it takes.
type Usage struct {
	Info
	MemoryBytes int64     // of the host's memory, 0 until the first use after a restart
	DiskBytes   int64     // of its files, without holes
	UsedAt      time.Time // zero if this daemon has not used it
}

// List returns all templates, the oldest first.
func (s *Store) List() ([]Usage, error) {
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list := []Usage{}
	for _, e := range entries {
		if !ValidKey(e.Name()) {
			continue
		}
		t, err := read(s.folder(e.Name()))
		if err != nil {
			s.opts.Log.Warn("cannot read a template", "template", e.Name(), "err", err)
			continue
		}
		list = append(list, s.usage(t))
	}
	slices.SortFunc(list, func(a, b Usage) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.Key, b.Key))
	})
	return list, nil
}

func (s *Store) usage(t Template) Usage {
	u := Usage{Info: t.Info, DiskBytes: diskBytes(t.dir)}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.UsedAt = s.used[t.Key]
	if m := s.loaded[t.Key]; m != nil && m.file != nil {
		u.MemoryBytes, _ = resident(m.file) // 0 is shown if it is not known
	}
	return u
}

// Remove removes a template. Machines that were started from it keep their disks
// and their memory.
func (s *Store) Remove(key string) error {
	if !ValidKey(key) || !exists(s.folder(key)) {
		return fmt.Errorf("%w: %.64q", ErrNotFound, key)
	}
	s.mu.Lock()
	err := s.unload(key)
	delete(s.used, key)
	s.mu.Unlock()
	return errors.Join(removeTemplate(s.folder(key)), err)
}

// Sweep removes the templates of images that are gone, and those that are too
// old.
func (s *Store) Sweep() error {
	list, err := s.List()
	for _, u := range list {
		if s.old(u.Info) || !exists(filepath.Join(s.opts.Gold, u.Image)) {
			s.opts.Log.Info("removing a template that is too old or whose image is gone", "template", u.Key, "image", u.Image)
			err = errors.Join(err, s.Remove(u.Key))
		}
	}
	return err
}

// evict removes the least recently used templates until so many more bytes of
// memory fit.
func (s *Store) evict(need int64) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b Usage) int { return latest(a).Compare(latest(b)) })
	sum := need
	for _, u := range list {
		sum += int64(u.Memory) << 20 // what it takes once it is loaded, at most
	}
	for _, u := range list {
		if sum <= s.opts.Memory {
			return nil
		}
		s.opts.Log.Info("removing the least recently used template to make room", "template", u.Key, "image", u.Image)
		if err := s.Remove(u.Key); err != nil {
			return err
		}
		sum -= int64(u.Memory) << 20
	}
	return nil
}

func latest(u Usage) time.Time {
	if u.UsedAt.After(u.CreatedAt) {
		return u.UsedAt
	}
	return u.CreatedAt
}
