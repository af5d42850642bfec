package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"osx-builder/vm"
)

// Destroy kills the machine's QEMU, unplugs it from its network and removes
// its folder. It needs no QEMU to be installed. The guest is not asked, nor is
// QEMU: there is nothing left that it could save.
func (d *Driver) Destroy(ctx context.Context, m vm.Machine) error {
	if err := d.erase(ctx, m); err != nil {
		return err
	}
	if err := d.networks.Detach(ctx, m.ID); err != nil {
		return fmt.Errorf("unplugging the machine from its network: %w", err)
	}
	return nil
}

// erase ends the machine's process and removes its folder.
func (d *Driver) erase(ctx context.Context, m vm.Machine) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := halt(ctx, m.Dir); err != nil {
		return err
	}
	if err := haltStrays(ctx, m.ID); err != nil {
		return err
	}
	awaitSupervisor(ctx, m.Dir)
	// First of all the file whose presence says that the clone is whole.
	if err := os.Remove(filepath.Join(m.Dir, machineFile)); err != nil && !missing(err) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	d.ready.Delete(m.Dir)
	return removeAll(m.Dir)
}

// removeAll removes dir with all that is in it, folders that may not be
// written included.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	opening := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	})
	if err := os.RemoveAll(dir); err != nil {
		return errors.Join(err, opening)
	}
	return nil
}
