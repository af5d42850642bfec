package token

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
)

// minToken is the shortest token in characters: a random one of this length cannot be guessed.
const minToken = 16

// validName matches the names of tokens. They are shown in documents, logs and metrics.
var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// File holds the hashes of all tokens of a file. Hashes have one length, so comparing takes the same time for every
// token. Its methods may be called concurrently.
type File struct {
	read    func(parse func(line string) error) error
	current atomic.Pointer[[]known]
}

// known is a token of the file.
type known struct {
	hash [sha256.Size]byte
	Token
}

// Open reads the tokens. read calls parse for each line of the file that has one, and returns its error.
func Open(read func(parse func(line string) error) error) (*File, error) {
	f := &File{read: read}
	return f, f.Reload()
}

// Reload reads the tokens again. If that fails, the previous ones stay valid. The error contains nothing of the file: it
// is logged.
func (f *File) Reload() error {
	var all []known
	err := f.read(func(line string) error {
		k, err := parse(line)
		if err == nil && slices.ContainsFunc(all, func(other known) bool { return other.hash == k.hash }) {
			err = errors.New("this token is on an earlier line too; each token may have one line")
		}
		all = append(all, k)
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the tokens (-token-file): %w", err)
	}
	f.current.Store(&all)
	return nil
}

// Find returns what the file says about a token, and whether it has the token. The time it takes does not depend on the
// token.
func (f *File) Find(text string) (t Token, ok bool) {
	hash := sha256.Sum256([]byte(text))
	for _, k := range *f.current.Load() {
		if subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 1 {
			t, ok = k.Token, true
		}
	}
	return t, ok
}

// parse reads a line: a token, which name=NAME and scopes=SCOPE,... may follow. A token without scopes has full rights.
// The errors quote nothing of the line, because each of its words may be a token.
func parse(line string) (known, error) {
	words := strings.Fields(line)
	secret := words[0]
	if invalid := strings.ContainsFunc(secret, func(c rune) bool { return c <= ' ' || c > '~' }); invalid || len(secret) < minToken {
		return known{}, fmt.Errorf("a token must have at least %d printable ASCII characters and no spaces; openssl rand -hex 32 makes one", minToken)
	}
	k := known{hash: sha256.Sum256([]byte(secret)), Token: Full()}
	seen := make(map[string]bool)
	for _, word := range words[1:] {
		attribute, value, _ := strings.Cut(word, "=")
		if seen[attribute] {
			return known{}, errors.New("name= and scopes= may be given once each")
		}
		seen[attribute] = true
		switch attribute {
		case "name":
			if k.Name = value; !validName.MatchString(value) {
				return known{}, errors.New("a token's name must have 1 to 63 letters, digits and \". _ -\", and begin and end with a letter or digit")
			}
		case "scopes":
			if k.Scopes = parseScopes(value); k.Scopes == nil {
				return known{}, fmt.Errorf("scopes= must be followed by %s, separated by commas", Join(Scopes(), "or"))
			}
		default:
			return known{}, errors.New("only name=NAME and scopes=SCOPE,... may follow the token, which comes first and has no spaces")
		}
	}
	if seen["scopes"] && k.Name == "" {
		return known{}, errors.New("a token with scopes needs a name, which its machines have as their owner: add name=NAME")
	}
	return k, nil
}

// parseScopes returns nil if a scope is not known.
func parseScopes(text string) (scopes []Scope) {
	for word := range strings.SplitSeq(text, ",") {
		if !slices.Contains(Scopes(), Scope(word)) {
			return nil
		}
		scopes = append(scopes, Scope(word))
	}
	return scopes
}
