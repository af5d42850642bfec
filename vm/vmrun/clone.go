package vmrun

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// Clone implements [vm.Driver].
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not cloning: %w", err)
	}
	if err := vmware.CheckImage(gold); err != nil {
		return err
	}
	acquired, err := d.acquire(ctx, vmware.VMXPath(m))
	if err != nil {
		return err
	}
	defer acquired.Release()
	return d.bases.Clone(ctx, m, gold, func(ctx context.Context, b vmware.Base, _ vmware.Acquired) error {
		if err := d.snapshot(ctx, b.VMX()); err != nil {
			return err
		}
		_, err := d.command.call(ctx, "clone the image", d.deadlines.Clone,
			"clone", b.VMX(), vmware.VMXPath(m), "linked", "-snapshot="+vmware.SnapshotName)
		return err
	})
}

// snapshot takes the snapshot that clones start from, unless it exists.
func (d *Driver) snapshot(ctx context.Context, path string) error {
	out, err := d.command.call(ctx, "list the image's snapshots", d.deadlines.Clone, "listSnapshots", path)
	if err != nil || slices.Contains(lines(out, "Total snapshots:"), vmware.SnapshotName) {
		return err
	}
	_, err = d.command.call(ctx, "take a snapshot of the image", d.deadlines.Clone, "snapshot", path, vmware.SnapshotName)
	return err
}

// Start implements [vm.Driver].
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	acquired, err := d.acquire(ctx, vmware.VMXPath(m))
	if err != nil {
		return err
	}
	defer acquired.Release()
	if err := vmware.CheckComplete(m); err != nil {
		return err
	}
	err = d.powerOn(ctx, m, m.LaunchGUI)
	switch {
	case vmware.IsCode(err, vmware.CodeLocked) && d.locks.AwaitExit(ctx, m.Dir):
		err = d.powerOn(ctx, m, m.LaunchGUI)
	case vmware.IsCode(err, vmware.CodeNoDisplay) && m.LaunchGUI:
		d.log.Warn("no display for launch_gui; starting without a window", "vm", m.ID)
		err = d.powerOn(ctx, m, false)
	}
	if err == nil {
		d.locks.Learn(m)
	}
	return err
}

// powerOn starts or resumes the machine, unless it runs.
func (d *Driver) powerOn(ctx context.Context, m vm.Machine, gui bool) error {
	if running, err := d.isRunning(ctx, m); running || err != nil {
		return err
	}
	mode := "nogui"
	if gui {
		mode = "gui"
	}
	d.guests.forget(m)
	_, err := d.command.call(ctx, "start the machine", d.deadlines.Start, "start", vmware.VMXPath(m), mode)
	if vmware.IsCode(err, vmware.CodeRunning) {
		return nil
	}
	return err
}

// message returns what clients may see of an error.
func message(err error) string {
	if e, ok := errors.AsType[*vm.Error](err); ok {
		return e.Message
	}
	return err.Error()
}
