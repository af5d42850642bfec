package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
)

// maxSecretFile bounds a file of secrets, in bytes: hundreds of them.
const maxSecretFile = 64 << 10

// SecretFile returns a function that reads the file at path, which has one secret per line, and calls parse for each.
// It skips blank lines, lines that begin with #, and the spaces around a secret. An error names the line and contains
// nothing of it, as long as that is true of the errors of parse. It is an error if there is no secret.
//
// The function logs a warning if other users can read or write the file. SecretFile returns nil if path is empty.
func SecretFile(path string, log *slog.Logger) func(parse func(line string) error) error {
	if path == "" {
		return nil
	}
	return func(parse func(line string) error) error { return readSecretFile(path, log, parse) }
}

// SecretText returns a function that reads the file at path, with the same limit and the same warning as [SecretFile].
// SecretText returns nil if path is empty.
func SecretText(path string, log *slog.Logger) func() (string, error) {
	if path == "" {
		return nil
	}
	return func() (string, error) { return readSecretText(path, log) }
}

func readSecretText(path string, log *slog.Logger) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// On Windows a mode says nothing about other users.
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		log.Warn("other users can read or write this file of secrets; run chmod 600", "file", path, "mode", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err == nil && len(text) > maxSecretFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxSecretFile)
	}
	return string(text), err
}

func readSecretFile(path string, log *slog.Logger, parse func(line string) error) error {
	text, err := readSecretText(path, log)
	if err != nil {
		return err
	}
	number, secrets := 0, 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := parse(line); err != nil {
			return fmt.Errorf("%s, line %d: %w", path, number, err)
		}
		secrets++
	}
	if secrets == 0 {
		return errors.New(path + " is empty; write one secret per line")
	}
	return nil
}
