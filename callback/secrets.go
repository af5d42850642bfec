package callback

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// The limits of Standard Webhooks for a secret, in bytes.
const (
	minSecret = 24
	maxSecret = 64
)

// Secrets holds the keys that sign callbacks. With two secrets each callback has two signatures, so that receivers may
// accept either while one replaces the other. Its methods may be called concurrently.
type Secrets struct {
	read    func(parse func(line string) error) error
	current atomic.Pointer[[][]byte]
}

// OpenSecrets reads the secrets. read calls parse for each of them, in the form that [ParseSecret] reads. If read is
// nil there are none.
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

// ParseSecret reads a secret in the form of Standard Webhooks: "whsec_", then 24 to 64 bytes in base64. It ignores
// spaces around the secret. Its errors contain nothing of the secret.
func ParseSecret(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(s), "whsec_")
	if !ok {
		return nil, errors.New("a callback secret must begin with whsec_")
	}
	secret, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("the part of a callback secret after whsec_ must be base64 with padding")
	}
	if len(secret) < minSecret || len(secret) > maxSecret {
		return nil, fmt.Errorf("a callback secret must have %d to %d bytes, not %d", minSecret, maxSecret, len(secret))
	}
	return secret, nil
}
