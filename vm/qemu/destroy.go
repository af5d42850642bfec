package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
)

// Destroy kills the machine's QEMU, detaches the machine from its network and
// removes its folder. It does not ask the guest or QEMU to end first, because
// nothing of the machine is kept. QEMU need not be installed.
func (d *Driver) Destroy(ctx context.Context, m vm.Machine) error {
	unlock, err := d.changing.Lock(ctx, m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.erase(ctx, m); err != nil {
		return err
	}
	if err := d.networks.manager.Detach(ctx, m.ID); err != nil {
		return fmt.Errorf("detaching the machine from its network: %w", err)
	}
	return nil
}

// erase kills the machine's process and removes its folder.
func (d *Driver) erase(ctx context.Context, m vm.Machine) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := process.Kill(ctx, m.Dir); err != nil {
		return err
	}
	if err := process.KillOrphans(ctx, m.ID); err != nil {
		return err
	}
	process.AwaitSupervisor(ctx, m.Dir)
	if err := process.EndBeside(ctx, m.Dir); err != nil {
		return err
	}
	if err := d.users.kill(ctx, m); err != nil {
		return err
	}
	if err := d.groups.Remove(ctx, m.ID); err != nil {
		return err
	}
	// The presence of this file means a complete clone, so it goes first.
	if err := os.Remove(filepath.Join(m.Dir, machineFile)); err != nil && !missing(err) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	d.readiness.Forget(m.Dir)
	if err := removeAll(m.Dir); err != nil {
		return err
	}
	d.agents.Release(filepath.Join(m.Dir, agentSocket))
	d.users.free(m.ID)
	return nil
}

// removeAll removes dir and everything in it, including read-only folders.
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

// Sweep kills every QEMU that runs in the machines' folder for a machine that
// is not known, and removes what such machines have on the managed networks.
// Then it repairs the networks of the known machines.
func (d *Driver) Sweep(ctx context.Context, known func(id string) bool) error {
	var errs []error
	for _, id := range process.Orphans(d.machinesDir) {
		if known(id) {
			continue
		}
		d.log.Info("killing the QEMU of an unknown machine", "vm", id)
		errs = append(errs, process.Kill(ctx, filepath.Join(d.machinesDir, id)), process.KillOrphans(ctx, id))
	}
	if err := d.networks.manager.Sweep(ctx, known); err != nil {
		errs = append(errs, fmt.Errorf("detaching unknown machines from their networks: %w", err))
	}
	if err := d.networks.manager.Repair(ctx); err != nil {
		errs = append(errs, fmt.Errorf("repairing the networks of known machines: %w", err))
	}
	return errors.Join(errs...)
}
