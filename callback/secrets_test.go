package callback_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/callback"
)

// secret is one of 24 bytes, all the same.
func secret(b string) string { return "whsec_" + strings.Repeat(b, 32) }

// A file of secrets is read line by line; once it has become unreadable the
// former ones stay.
func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets")
	put := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("# present\n" + secret("A") + "\r\n\n  # former\n  " + secret("B") + "\n")
	f, err := callback.OpenSecretFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.Secrets()); n != 2 || bytes.Equal(f.Secrets()[0], f.Secrets()[1]) {
		t.Errorf("got %d secrets, want two that differ", n)
	}
	put(secret("C"))
	if err := f.Reload(); err != nil || len(f.Secrets()) != 1 {
		t.Errorf("Reload: got %d secrets, %v, want 1", len(f.Secrets()), err)
	}
	for name, c := range map[string][2]string{
		"empty":        {"# none\n", "has no secret"},
		"not a secret": {secret("A") + "\nhunter2\n", "line 2"},
		"short":        {"whsec_QUJD", "24 to 64"},
		"large":        {strings.Repeat("# comment\n", 10000), "larger"},
	} {
		put(c[0])
		err := f.Reload()
		if err == nil || !strings.Contains(err.Error(), c[1]) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want an error that says %q and no secret", name, err, c[1])
		}
		if len(f.Secrets()) != 1 {
			t.Errorf("%s: the former secret is lost", name)
		}
	}
	if _, err := callback.OpenSecretFile(path + "x"); err == nil {
		t.Error("a file that is not there: got no error")
	}
}
