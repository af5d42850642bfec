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
	file *logFile // nil where the log goes to standard error
}

// OpenLog returns the log that the settings ask for. stderr is used where they
// name no file.
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

// Reopen opens the log file anew, by its name: what a program that rotates
// logs has renamed is let go of. It may be called while others log. After an
// error the log goes on in the former file.
func (l *Log) Reopen() error {
	if l.file == nil {
		return nil
	}
	return l.file.reopen()
}

// Close closes the log file. Nothing may be logged after.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.f.Close()
}

// logFile is a file that lines are added to.
type logFile struct {
	path string

	mu sync.Mutex // guards f, so that no line meets a closed file
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
		_ = f.Close() // every line in it was written; there is no other way to tell
	}
	return nil
}
