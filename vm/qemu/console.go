package qemu

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
)

const (
	// trimEvery is how often the machines' logs are trimmed. In between a log
	// grows by what its guest writes.
	trimEvery = 10 * time.Second

	// holeBlock is the unit of holes, a multiple of every file system's block
	// size. File systems free whole blocks only.
	holeBlock = 1 << 16
)

// Console opens the machine's serial log.
func (d *Driver) Console(_ context.Context, m vm.Machine) (io.ReadSeekCloser, error) {
	f, err := process.OpenOwned(filepath.Join(m.Dir, serialLog), os.O_RDONLY)
	if err != nil {
		return nil, err // not a typed nil
	}
	return f, nil
}

// logTrimmer trims the machines' serial logs and QEMU's own logs.
//
// QEMU keeps its logs open and cannot open others, so the files stay and their
// beginnings become holes. This disturbs no reader or writer, and loses nothing
// that is written at the same time. While no daemon runs, each machine's own
// [trimmer] trims its serial log.
type logTrimmer struct {
	dir string // folder that holds each Machine.Dir
	log *slog.Logger
}

// run trims the logs, at once and then every trimEvery, until ctx ends.
func (l *logTrimmer) run(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		l.trim()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *logTrimmer) trim() {
	machines, err := os.ReadDir(l.dir)
	if err != nil && !missing(err) {
		l.log.Warn("cannot trim logs", "err", err)
	}
	for _, m := range machines {
		for _, name := range []string{serialLog, process.LogFile} {
			path := filepath.Join(l.dir, m.Name(), name)
			err := trimFile(path)
			if err != nil && !missing(err) && !errors.Is(err, unix.ENOTDIR) {
				l.log.Warn("cannot trim a log", "path", path, "err", err)
			}
		}
	}
}

// trimFile frees the log's blocks before its last [vm.ConsoleKept] bytes. On a
// file system without holes, and beyond [consoleLimit], it empties the log.
func trimFile(path string) error {
	f, err := process.OpenOwned(path, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	before := (info.Size() - vm.ConsoleKept) / holeBlock * holeBlock
	if before <= 0 {
		return nil
	}
	if info.Size() > consoleLimit {
		return f.Truncate(0)
	}
	err = punchHole(f, before)
	if errors.Is(err, errors.ErrUnsupported) {
		return f.Truncate(0)
	}
	return err
}
