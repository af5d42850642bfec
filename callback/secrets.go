package callback

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
)

// maxSecretFile bounds a file of secrets, in bytes: hundreds of them.
const maxSecretFile = 64 << 10

// SecretFile is a file with a secret a line, in the form that ParseSecret
// reads. Blank lines, and those that begin with #, do not count. With two
// secrets each callback has two signatures, so that receivers may know either
// while one replaces the other. Its methods may be called at once.
type SecretFile struct {
	path    string
	secrets atomic.Pointer[[][]byte]
}

// OpenSecretFile reads the file. It is an error if it has no secret. Without a path there are no secrets.
func OpenSecretFile(path string) (*SecretFile, error) {
	f := &SecretFile{path: path}
	f.secrets.Store(new([][]byte))
	return f, f.Reload()
}

// Secrets returns what the file held when it was last read: Options.Secrets.
func (f *SecretFile) Secrets() [][]byte { return *f.secrets.Load() }

// Reload reads the file anew. After an error the former secrets stay. Errors
// name the line at fault and hold nothing of the secrets.
func (f *SecretFile) Reload() error {
	if f.path == "" {
		return nil
	}
	secrets, err := readSecrets(f.path)
	if err != nil {
		return fmt.Errorf("reading the callback secrets: %w", err)
	}
	f.secrets.Store(&secrets)
	return nil
}

func readSecrets(path string) (secrets [][]byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSecretFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxSecretFile)
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		secret, err := ParseSecret(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, number, err)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, errors.New(path + " has no secret; write one as whsec_ and 24 to 64 random bytes in base64")
	}
	return secrets, nil
}
