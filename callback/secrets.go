package callback

import (
	"fmt"
	"sync/atomic"
)

// Secrets holds the keys that sign callbacks. With two secrets each callback has two signatures, so that receivers may
// accept either while one replaces the other. Its methods may be called concurrently.
type Secrets struct {
	read    func(parse func(line string) error) error
	current atomic.Pointer[[][]byte]
}

// OpenSecrets reads the secrets. read calls parse for each of them, in the form that [ParseSecret] reads. If read is nil
// there are none.
func OpenSecrets(read func(parse func(line string) error) error) (*Secrets, error) {
	s := &Secrets{read: read}
	s.current.Store(new([][]byte))
	return s, s.Reload()
}

// Keys returns the keys that were last read, for [Options].Secrets.
func (s *Secrets) Keys() [][]byte { return *s.current.Load() }

// Reload reads the secrets again. If that fails, the previous ones stay in use.
func (s *Secrets) Reload() error {
	if s.read == nil {
		return nil
	}
	var keys [][]byte
	err := s.read(func(line string) error {
		key, err := ParseSecret(line)
		keys = append(keys, key)
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the callback secrets (-callback-secret-file): %w", err)
	}
	s.current.Store(&keys)
	return nil
}
