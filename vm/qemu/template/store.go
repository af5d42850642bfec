package template

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrNotFound means that there is no template of the key.
var ErrNotFound = errors.New("there is no such template")

// Options configures a [Store].
type Options struct {
	Dir    string        // absolute path of the folder with the templates; created when it is needed
	Gold   string        // absolute path of the folder with the gold images
	Memory int64         // bytes of the host's memory that templates may take together
	Age    time.Duration // of a template of a guest without agent; 0: an hour
	Log    *slog.Logger
}

// The ages at which a template is made again. A guest's clock is behind by the
// template's age, unless its agent sets it.
const (
	defaultAge   = time.Hour
	defaultAgent = 24 * time.Hour
)

// Store keeps templates. Its methods may be called concurrently.
type Store struct {
	opts Options

	mu     sync.Mutex
	loaded map[string]*memory   // by key; guarded by mu
	used   map[string]time.Time // when a template was last used, by key; guarded by mu
}

// memory is a template's memory, once it is needed.
type memory struct {
	once sync.Once
	mib  int
	file *os.File // sealed
	err  error
}

// Open removes what an earlier daemon did not finish, and templates of images
// that are gone.
func Open(o Options) (*Store, error) {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.Age = cmp.Or(o.Age, defaultAge)
	s := &Store{opts: o, loaded: map[string]*memory{}, used: map[string]time.Time{}}
	entries, err := os.ReadDir(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(o.Dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return s, s.Sweep()
}

// Close gives the memory back that no machine uses.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for key := range s.loaded {
		errs = append(errs, s.unload(key))
	}
	return errors.Join(errs...)
}

// unload closes the memory of a template. The caller holds mu.
func (s *Store) unload(key string) error {
	m := s.loaded[key]
	delete(s.loaded, key)
	if m == nil {
		return nil
	}
	m.once.Do(func() { m.err = ErrNotFound }) // waits for one that is being loaded
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}

// Get returns the template of the key and its memory, which the caller closes.
// The error wraps [ErrNotFound] if there is none or if it is too old.
func (s *Store) Get(key string) (Template, *os.File, error) {
	t, err := s.find(key)
	if err != nil {
		return t, nil, err
	}
	s.mu.Lock()
	m := s.loaded[key]
	if m == nil {
		m = &memory{mib: t.Memory}
		s.loaded[key] = m
	}
	s.used[key] = time.Now()
	s.mu.Unlock()
	m.once.Do(func() { m.file, m.err = t.loadMemory() })
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.err != nil || s.loaded[key] != m {
		if s.loaded[key] == m {
			delete(s.loaded, key) // the next caller tries again
		}
		return t, nil, cmp.Or(m.err, ErrNotFound)
	}
	file, err := Duplicate(m.file)
	return t, file, err
}

// find returns the template of the key unless it is too old.
func (s *Store) find(key string) (Template, error) {
	t, err := read(s.folder(key))
	if errors.Is(err, fs.ErrNotExist) {
		return t, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	if err == nil && s.old(t.Info) {
		err = fmt.Errorf("%w: that of %s is too old", ErrNotFound, t.CreatedAt.Format(time.RFC3339))
	}
	return t, err
}

// Has reports whether there is a template of the key that is not too old.
func (s *Store) Has(key string) bool {
	_, err := s.find(key)
	return err == nil
}

func (s *Store) old(i Info) bool {
	limit := s.opts.Age
	if i.Agent && limit == defaultAge {
		limit = defaultAgent
	}
	age := time.Since(i.CreatedAt)
	return age > limit || age < -limit // the clock was set back
}

func (s *Store) folder(key string) string { return filepath.Join(s.opts.Dir, key) }

// loadMemory fills a file in memory from the template's copy of it, and seals it.
func (t Template) loadMemory() (*os.File, error) {
	ram, err := os.Open(filepath.Join(t.dir, ramFile))
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	m, err := NewMemory(int64(t.Memory) << 20)
	if err != nil {
		return nil, err
	}
	err = copySparse(m, ram)
	if err == nil {
		err = Seal(m)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the memory of template %s: %w", t.Key, err), m.Close())
	}
	return m, nil
}

// Fits reports whether a template of a machine with so many MiB may be made.
func (s *Store) Fits(mib int) bool { return int64(mib)<<20 <= s.opts.Memory }

// Loaded returns how many MiB the templates have promised to use of the host's memory, which those do that were used
// since the daemon's start.
func (s *Store) Loaded() (mib int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.loaded {
		mib += m.mib
	}
	return mib
}

// Limit returns how many bytes templates may take together.
func (s *Store) Limit() int64 { return s.opts.Memory }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
