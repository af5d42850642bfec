package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
)

const (
	// minToken makes guessing hopeless where tokens are random.
	minToken = 16

	// maxTokenFile bounds the file, in bytes: a thousand tokens.
	maxTokenFile = 64 << 10
)

// tokens are those that let their bearers in: of each its hash, so that all
// are compared in the same time whatever their lengths.
type tokens struct {
	path string
	log  *slog.Logger
	now  atomic.Pointer[[][sha256.Size]byte]
}

func openTokens(path string, log *slog.Logger) (*tokens, error) {
	t := &tokens{path: path, log: log}
	return t, t.reload()
}

// reload reads the file anew. After an error the tokens of before hold.
func (t *tokens) reload() error {
	hashes, err := t.read()
	if err != nil {
		return fmt.Errorf("reading the tokens (-token-file): %w", err)
	}
	t.now.Store(&hashes)
	return nil
}

func (t *tokens) read() (hashes [][sha256.Size]byte, err error) {
	f, err := os.Open(t.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		t.log.Warn("others than its owner can read or write the tokens; chmod 600 it", "file", t.path, "mode", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxTokenFile:
		return nil, fmt.Errorf("%s is larger than %d bytes", t.path, maxTokenFile)
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// The token itself is kept out of what is logged.
		if odd := strings.ContainsFunc(line, func(c rune) bool { return c <= ' ' || c > '~' }); odd || len(line) < minToken {
			return nil, fmt.Errorf("%s, line %d: a token must have at least %d printable ASCII characters and no blanks", t.path, number, minToken)
		}
		hashes = append(hashes, sha256.Sum256([]byte(line)))
	}
	if len(hashes) == 0 {
		return nil, errors.New(t.path + " has no token; write one a line, as openssl rand -hex 32 makes them")
	}
	return hashes, nil
}

// valid tells whether a token is among them, in a time that says nothing of
// which one it is like.
func (t *tokens) valid(token string) bool {
	hash := sha256.Sum256([]byte(token))
	found := 0
	for _, known := range *t.now.Load() {
		found |= subtle.ConstantTimeCompare(hash[:], known[:])
	}
	return found == 1
}
