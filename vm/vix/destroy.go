//go:build vix && cgo

package vix

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
	ref, err := d.vms.acquire(ctx, vmware.VMXPath(m), d.deadlines.Stop)
	if err != nil {
		return err
	}
	defer ref.Release()
	if err := d.stop(ctx, ref, m); err != nil {
		return err
	}
	if err := d.delete(ctx, ref, m); err != nil {
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
func (d *Driver) stop(ctx context.Context, ref *vmRef, m vm.Machine) error {
	if !vmware.HasVMX(m) && ref.vm == nil {
		return nil
	}
	err := ref.powerOff(ctx)
	if isCode(err, vmware.CodeLocked) && d.locks.RemoveStale(m.Dir) {
		err = ref.powerOff(ctx)
	}
	if vmware.IsUnreadable(err) && d.locks.Held(m) == nil {
		d.log.Warn("VMware cannot open the machine, and no process uses it; removing its files", "vm", m.ID, "err", err)
		return nil
	}
	if err != nil && !vmware.IsNotFound(err) {
		return err
	}
	return d.locks.Await(ctx, m, d.deadlines.Unlock)
}

// delete makes VMware delete the machine, which is off and unused, with its files. What VMware cannot delete is removed
// with the folder.
func (d *Driver) delete(ctx context.Context, ref *vmRef, m vm.Machine) error {
	if !vmware.HasVMX(m) && ref.vm == nil {
		return nil
	}
	err := ref.call(ctx, "delete the machine", d.deadlines.Stop, func() error {
		if err := deleteVM(ref.handle); err != nil {
			return err
		}
		ref.close()
		return nil
	})
	switch {
	case err == nil:
		return nil
	case isCode(err, vmware.CodeLocked, vmware.CodeRunning) || codeOf(err) == 0:
		return err
	}
	if err := d.locks.Held(m); err != nil {
		return err
	}
	if vmware.IsNotFound(err) {
		return nil
	}
	d.log.Warn("VMware did not delete the machine, which is off; removing its files", "vm", m.ID, "err", err)
	return nil
}
