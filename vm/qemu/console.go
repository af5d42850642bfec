package qemu

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
)

const (
	// trimEvery is how often the machines' logs are cut back. Between two
	// times a log grows by what its guest writes.
	trimEvery = 10 * time.Second

	// holeBlock is what holes are made in: a multiple of every file system's
	// blocks, of which parts cannot be given back.
	holeBlock = 1 << 16
)

// Console opens the machine's serial log.
func (d *Driver) Console(_ context.Context, m vm.Machine) (io.ReadSeekCloser, error) {
	f, err := os.Open(filepath.Join(m.Dir, serialLog))
	if err != nil {
		return nil, err // not a typed nil
	}
	return f, nil
}

// keepLogs cuts the machines' logs back, at once and again and again until ctx
// ends.
//
// QEMU has its logs open and cannot be made to open others, so they stay the
// files that they are, and their beginnings become holes: that takes nothing
// from a reader or a writer, and loses nothing that is written meanwhile.
// While the daemon is away nobody does it.
func (d *Driver) trimLogsPeriodically(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		d.trimLogs()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (d *Driver) trimLogs() {
	machines, err := os.ReadDir(d.machinesDir)
	if err != nil && !missing(err) {
		d.log.Warn("logs not cut back", "err", err)
	}
	for _, m := range machines {
		for _, name := range []string{serialLog, process.LogFile} {
			path := filepath.Join(d.machinesDir, m.Name(), name)
			err := trim(path)
			if err != nil && !missing(err) && !errors.Is(err, unix.ENOTDIR) {
				d.log.Warn("log not cut back", "path", path, "err", err)
			}
		}
	}
}

// trim gives the disk back what the log has before its last vm.ConsoleKept
// bytes. Where the disk knows no holes, the whole log.
func trim(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
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
	err = punchHole(f, before)
	if errors.Is(err, errors.ErrUnsupported) {
		return f.Truncate(0)
	}
	return err
}
