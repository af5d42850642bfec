package server_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"osx-builder/api/server"
	"osx-builder/config"
)

// SIGHUP makes the server read its tokens again.
func TestTokensAreReloaded(t *testing.T) {
	const first, second = "first-token-0123456789", "second-token-0123456789"
	file := filepath.Join(t.TempDir(), "tokens")
	must(t, os.WriteFile(file, []byte(first), 0o600))
	s := startServer(t, server.Options{ReadTokens: config.SecretFile(file, slog.New(slog.DiscardHandler))}, hello)
	find := s.FindToken()
	must(t, os.WriteFile(file, []byte(second+" name=ci"), 0o600))
	if _, ok := find(first); !ok {
		t.Error("the first token is not valid")
	}
	s.reload()
	if _, ok := find(first); ok {
		t.Error("the first token is valid after the file lost it")
	}
	if got, ok := find(second); !ok || got.Name != "ci" {
		t.Errorf("the second token: got %v, %v, want the name ci", got, ok)
	}
}
