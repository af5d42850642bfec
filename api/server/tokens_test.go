package server_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/api/server"
)

const (
	first  = "first-token-0123456789"
	second = "second-token-0123456789"
)

// Tokens can be rotated: the file may hold both, and SIGHUP loads it. An invalid file changes nothing.
func TestTokenRotation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) { must(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("# of the build farm\n\n  " + first + "\r\n")
	s := startServer(t, server.Options{TokenFile: file}, hello)
	valid := s.Authorized()
	check := func(when string, want map[string]bool) {
		t.Helper()
		for token, w := range want {
			if valid(token) != w {
				t.Errorf("%s: token %q is valid: %v, want %v", when, token, !w, w)
			}
		}
	}
	check("at first", map[string]bool{
		first: true, second: false, "": false, first[:21]: false, first + "x": false, " " + first: false,
		"# of the build farm": false, strings.ToUpper(first): false,
	})
	write(first + "\n" + second)
	check("before SIGHUP", map[string]bool{first: true, second: false})
	s.reload()
	check("with both", map[string]bool{first: true, second: true})
	write(second)
	s.reload()
	check("with the second", map[string]bool{first: false, second: true})
	write("short")
	s.reload()
	check("after an invalid file", map[string]bool{first: false, second: true})
	if log := s.log.String(); strings.Contains(log, first) || strings.Contains(log, second) || strings.Contains(log, "short\n") {
		t.Errorf("the log contains a token: %s", log)
	}
}

func TestInvalidTokenFiles(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":         {"", "has no token"},
		"comments only": {"# none\n\n", "has no token"},
		"too short":     {"#\nfifteen-letters", "line 2: a token must have at least 16"},
		"with spaces":   {"two words of a token", "line 1: a token must have"},
		"not ASCII":     {"töken-0123456789abc", "line 1: a token must have"},
		"large":         {strings.Repeat("x", 65<<10), "larger than"},
	} {
		file := filepath.Join(t.TempDir(), "tokens")
		must(t, os.WriteFile(file, []byte(c.text), 0o600))
		_, err := server.Listen(server.Options{Listen: "127.0.0.1:0", TokenFile: file, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
		if err != nil && len(c.text) > 10 && strings.Contains(err.Error(), strings.TrimPrefix(c.text, "#\n")) {
			t.Errorf("%s: the error contains the token: %v", name, err)
		}
	}
}

// A token file that other users can read or write is used, with a warning in the log.
func TestTokenFilePermissions(t *testing.T) {
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o620: true} {
		file := filepath.Join(t.TempDir(), "tokens")
		must(t, os.WriteFile(file, []byte(first), 0o600))
		must(t, os.Chmod(file, mode))
		var log bytes.Buffer
		s, err := server.Listen(server.Options{Listen: "127.0.0.1:0", TokenFile: file, Log: slog.New(slog.NewTextHandler(&log, nil))})
		must(t, err)
		s.Close()
		if got := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "chmod 600"); got != warned {
			t.Errorf("mode %v: warned: %v, want %v: %s", mode, got, warned, log.String())
		}
	}
}
