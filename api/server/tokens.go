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
	// minToken is the shortest token in characters: a random one of this length cannot be guessed.
	minToken = 16

	// maxTokenFile bounds the file's size, in bytes: about a thousand tokens.
	maxTokenFile = 64 << 10
)

// tokens holds the hashes of all accepted tokens. Hashes have one length, so comparing takes the same time for every
// token.
type tokens struct {
	path    string
	log     *slog.Logger
	current atomic.Pointer[[][sha256.Size]byte]
}

func openTokens(path string, log *slog.Logger) (*tokens, error) {
	t := &tokens{path: path, log: log}
	return t, t.reload()
}

// reload reads the file again. If that fails, the previous tokens stay valid.
func (t *tokens) reload() error {
	hashes, err := t.read()
	if err != nil {
		return fmt.Errorf("reading the tokens (-token-file): %w", err)
	}
	t.current.Store(&hashes)
	return nil
}

func (t *tokens) read() (hashes [][sha256.Size]byte, err error) {
	f, err := os.Open(t.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 {
		t.log.Warn("other users can read or write the token file; run chmod 600", "file", t.path, "mode", info.Mode().Perm())
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
		// The error does not contain the token: it is logged.
		if invalid := strings.ContainsFunc(line, func(c rune) bool { return c <= ' ' || c > '~' }); invalid || len(line) < minToken {
			return nil, fmt.Errorf("%s, line %d: a token must have at least %d printable ASCII characters and no spaces", t.path, number, minToken)
		}
		hashes = append(hashes, sha256.Sum256([]byte(line)))
	}
	if len(hashes) == 0 {
		return nil, errors.New(t.path + " has no token; write one per line, for example the output of openssl rand -hex 32")
	}
	return hashes, nil
}

// valid reports whether token is one of t. The time it takes does not depend on the token.
func (t *tokens) valid(token string) bool {
	hash := sha256.Sum256([]byte(token))
	found := 0
	for _, known := range *t.current.Load() {
		found |= subtle.ConstantTimeCompare(hash[:], known[:])
	}
	return found == 1
}
