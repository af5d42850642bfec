package vmrun

import (
	"context"
	"fmt"
	"os"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// Destroy implements [vm.Driver].
func (d *Driver) Destroy(ctx context.Context, m vm.Machine) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not destroying: %w", err)
	}
	acquired, err := d.acquire(ctx, vmware.VMXPath(m))
	if err != nil {
		return err
	}
	defer acquired.Release()
	defer d.guests.forget(m)
	if err := d.stop(ctx, m); err != nil {
		return err
	}
	if err := d.delete(ctx, m); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("removing the machine's folder: %w", err)
	}
	if err := d.bases.RemoveMarker(m.ID); err != nil {
		return fmt.Errorf("removing the machine's marker from its base: %w", err)
	}
	d.bases.RemoveUnused(ctx)
	return nil
}

// stop powers the machine off and waits until no process uses it.
func (d *Driver) stop(ctx context.Context, m vm.Machine) error {
	err := d.powerOff(ctx, m)
	if vmware.IsCode(err, vmware.CodeLocked) && d.locks.RemoveStale(m.Dir) {
		err = d.powerOff(ctx, m)
	}
	if vmware.IsUnreadable(err) && d.locks.Held(m) == nil {
		d.log.Warn("VMware cannot open the machine, and no process uses it; removing its files", "vm", m.ID, "err", err)
		return nil
	}
	if err != nil && !vmware.IsNotFound(err) && !vmware.IsCode(err, vmware.CodeNotRunning) {
		return err
	}
	return d.locks.Await(ctx, m, d.deadlines.Unlock)
}

// delete makes VMware delete the machine, which is off and unused, with its files. What VMware cannot delete is removed
// with the folder.
func (d *Driver) delete(ctx context.Context, m vm.Machine) error {
	if !vmware.HasVMX(m) {
		return nil
	}
	_, err := d.command.call(ctx, "delete the machine", d.deadlines.Stop, "deleteVM", vmware.VMXPath(m))
	if err == nil {
		return nil
	}
	if ctx.Err() != nil || vmware.IsCode(err, vmware.CodeLocked, vmware.CodeRunning) || !vmware.IsFailure(err) {
		return err
	}
	if running, runErr := d.isRunning(ctx, m); running || runErr != nil {
		return err
	}
	if err := d.locks.Held(m); err != nil {
		return err
	}
	if !vmware.IsNotFound(err) {
		d.log.Warn("VMware did not delete the machine, which is off; removing its files", "vm", m.ID, "err", err)
	}
	return nil
}
