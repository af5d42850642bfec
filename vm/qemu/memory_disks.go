package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/template"
)

// frozenName is the file in Machine.Dir below the overlay of the disk i: another
// name of the template's file, so that the machine keeps it when the template goes.
func frozenName(i int) string { return fmt.Sprintf("frozen%d.qcow2", i) }

// createDisks gives the clone in dir the disks of the template, as they were when
// the memory was saved. It replaces those that an earlier attempt left.
func (s *memoryStarts) createDisks(dir string, clone *cloneConfig, t template.Template) error {
	for i := range clone.Disks {
		d := &clone.Disks[i]
		d.Frozen = frozenName(i)
		frozen := filepath.Join(dir, d.Frozen)
		if err := os.Remove(frozen); err != nil && !missing(err) {
			return err
		}
		if err := os.Link(t.Disk(i), frozen); err != nil {
			return err
		}
		overlay := filepath.Join(dir, d.Overlay)
		if err := errors.Join(copyFile(t.Empty(i), overlay), vm.SyncPath(overlay)); err != nil {
			return err
		}
	}
	if clone.Firmware == "efi" {
		return copyFile(t.Vars(), filepath.Join(dir, varsFile))
	}
	return nil
}

// bootInstead makes an ordinary clone of one that could not start from memory.
// Nothing of its guest is kept: it has run for two seconds at most, and no client
// has seen it.
func (s *memoryStarts) bootInstead(ctx context.Context, m vm.Machine, clone *cloneConfig, why error) error {
	s.log.Warn("the machine does not start from memory; it boots", "vm", m.ID, "why", why)
	warnBooted(clone, why)
	clone.Template = nil
	for i := range clone.Disks {
		clone.Disks[i].Frozen = ""
		if err := os.Remove(filepath.Join(m.Dir, clone.Disks[i].Overlay)); err != nil && !missing(err) {
			return err
		}
	}
	if err := createDisks(ctx, s.driver.programs, m.Dir, clone); err != nil {
		return err
	}
	if err := writeConfig(m.Dir, *clone); err != nil {
		return disk.FullError(err)
	}
	for i := range clone.Disks {
		if err := os.Remove(filepath.Join(m.Dir, frozenName(i))); err != nil && !missing(err) {
			return err
		}
	}
	return nil
}

// copyFile copies a file of a few megabytes. It replaces an existing copy.
func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	f, err := process.CreateOwned(to, os.O_WRONLY)
	if err != nil {
		return err
	}
	_, copying := io.Copy(f, source)
	if err := errors.Join(copying, f.Close()); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return nil
}
