package config_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"osx-builder/config"
)

func TestSecretFile(t *testing.T) {
	errBad := errors.New("too short")
	for name, c := range map[string]struct {
		text string
		want []string
		err  string
	}{
		"secrets, blank lines and comments": {"# present\nfirst\r\n\n  # former\n  second ", []string{"first", "second"}, ""},
		"nothing":                           {"", nil, "is empty; write one secret per line"},
		"comments only":                     {"# none\n\n", nil, "is empty"},
		"a line that parse refuses":         {"first\n#\nbad\n", []string{"first"}, "line 3: too short"},
		"64 KiB and more":                   {strings.Repeat("# comment\n", 10_000), nil, "is larger than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secrets")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var got []string
			err := config.SecretFile(path, slog.New(slog.DiscardHandler))(func(line string) error {
				if line == "bad" {
					return errBad
				}
				got = append(got, line)
				return nil
			})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
	if err := config.SecretFile("/no/such/file", nil)(nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: got %v, want %v", err, os.ErrNotExist)
	}
	if config.SecretFile("", nil) != nil {
		t.Error("without a path: got a function, want nil")
	}
}

// A file that other users can read or write is used, with a warning in the log.
func TestSecretFilePermissions(t *testing.T) {
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o620: true} {
		path := filepath.Join(t.TempDir(), "secrets")
		if err := errors.Join(os.WriteFile(path, []byte("secret"), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		if err := config.SecretFile(path, slog.New(slog.NewTextHandler(&log, nil)))(func(string) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "chmod 600"); got != warned {
			t.Errorf("mode %v: warned: %v, want %v: %s", mode, got, warned, log.String())
		}
	}
}
