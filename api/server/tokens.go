package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"
	"sync/atomic"
)

// minToken is the shortest token in characters: a random one of this length cannot be guessed.
const minToken = 16

// tokens holds the hashes of all accepted tokens. Hashes have one length, so comparing takes the same time for every
// token.
type tokens struct {
	read    func(parse func(line string) error) error
	current atomic.Pointer[[][sha256.Size]byte]
}

func openTokens(read func(parse func(line string) error) error) (*tokens, error) {
	t := &tokens{read: read}
	return t, t.reload()
}

// reload reads the tokens again. If that fails, the previous ones stay valid.
func (t *tokens) reload() error {
	var hashes [][sha256.Size]byte
	err := t.read(func(line string) error {
		// The error does not contain the token: it is logged.
		if invalid := strings.ContainsFunc(line, func(c rune) bool { return c <= ' ' || c > '~' }); invalid || len(line) < minToken {
			return fmt.Errorf("a token must have at least %d printable ASCII characters and no spaces; openssl rand -hex 32 makes one", minToken)
		}
		hashes = append(hashes, sha256.Sum256([]byte(line)))
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the tokens (-token-file): %w", err)
	}
	t.current.Store(&hashes)
	return nil
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
