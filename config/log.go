package config

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
)

// Log is the daemon's log.
type Log struct {
	*slog.Logger
	file *logFile // nil if the log goes to standard error
}

// OpenLog opens the log that the settings describe. It uses stderr if they name no file.
func (c Config) OpenLog(stderr io.Writer) (*Log, error) {
	l := &Log{}
	if c.LogFile != "" {
		l.file = &logFile{path: c.LogFile}
		if err := l.file.reopen(); err != nil {
			return nil, err
		}
		stderr = l.file
	}
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		l.Logger = slog.New(slog.NewJSONHandler(stderr, o))
	} else {
		l.Logger = slog.New(slog.NewTextHandler(stderr, o))
	}
	return l, nil
}

// Reopen opens the log file again by its name, after a program that rotates logs has renamed it. It may be called
// concurrently with logging. If it fails, the log continues in the old file.
func (l *Log) Reopen() error {
	if l.file == nil {
		return nil
	}
	return l.file.reopen()
}

// Close closes the log file. Nothing may be logged afterwards.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.f.Close()
}

// logFile appends lines to a file.
type logFile struct {
	path string

	mu sync.Mutex // guards f, so that no line is written to a closed file
	f  *os.File
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(b)
}

func (l *logFile) reopen() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log file: %w; choose another with -log-file", err)
	}
	l.mu.Lock()
	f, l.f = l.f, f
	l.mu.Unlock()
	if f != nil {
		_ = f.Close() // all lines are written, so an error changes nothing
	}
	return nil
}
