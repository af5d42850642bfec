package callback_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"osx-builder/callback"
)

// secret is one of 24 bytes, all the same.
func secret(b string) string { return "whsec_" + strings.Repeat(b, 32) }

// Reload replaces the secrets. If it fails, the previous ones stay in use, and the error contains nothing of them.
func TestSecretsReload(t *testing.T) {
	lines := []string{secret("A"), secret("B")}
	var failure error
	s, err := callback.OpenSecrets(func(parse func(line string) error) error {
		for _, line := range lines {
			if err := parse(line); err != nil {
				return err
			}
		}
		return failure
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.Keys()); n != 2 || bytes.Equal(s.Keys()[0], s.Keys()[1]) {
		t.Errorf("got %d keys, want two that differ", n)
	}
	lines = []string{secret("C")}
	if err := s.Reload(); err != nil || len(s.Keys()) != 1 {
		t.Errorf("Reload: got %d keys, %v, want 1", len(s.Keys()), err)
	}
	for name, c := range map[string]struct {
		lines   []string
		failure error
		want    string
	}{
		"unreadable":   {nil, errors.New("no such file"), "no such file"},
		"not a secret": {[]string{secret("A"), "hunter2"}, nil, "must begin with whsec_"},
		"short":        {[]string{"whsec_QUJD"}, nil, "24 to 64"},
	} {
		lines, failure = c.lines, c.failure
		err := s.Reload()
		want(t, err, c.want, "-callback-secret-file")
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want no secret in it", name, err)
		}
		if len(s.Keys()) != 1 {
			t.Errorf("%s: the previous secret is lost", name)
		}
	}
}

func TestNoSecrets(t *testing.T) {
	s, err := callback.OpenSecrets(nil)
	if err != nil || len(s.Keys()) != 0 || s.Reload() != nil {
		t.Errorf("got %d keys, %v, want none", len(s.Keys()), err)
	}
}
