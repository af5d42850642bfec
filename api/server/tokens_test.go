package server_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/api/server"
	"osx-builder/config"
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
	s := startServer(t, server.Options{ReadTokens: config.SecretFile(file, slog.New(slog.DiscardHandler))}, hello)
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
		"empty":         {"", "is empty"},
		"comments only": {"# none\n\n", "is empty"},
		"too short":     {"#\nfifteen-letters", "line 2: a token must have at least 16"},
		"with spaces":   {"two words of a token", "line 1: a token must have"},
		"not ASCII":     {"töken-0123456789abc", "line 1: a token must have"},
		"large":         {strings.Repeat("x", 65<<10), "larger than"},
	} {
		file := filepath.Join(t.TempDir(), "tokens")
		must(t, os.WriteFile(file, []byte(c.text), 0o600))
		_, err := server.Listen(server.Options{Listen: "127.0.0.1:0", ReadTokens: config.SecretFile(file, slog.New(slog.DiscardHandler)), Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
		if err != nil && len(c.text) > 10 && strings.Contains(err.Error(), strings.TrimPrefix(c.text, "#\n")) {
			t.Errorf("%s: the error contains the token: %v", name, err)
		}
	}
}
