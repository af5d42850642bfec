//go:build vix && cgo

package vix

import (
	"context"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// Start implements [vm.Driver].
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	ref, err := d.vms.acquire(ctx, vmware.VMXPath(m), d.deadlines.Start)
	if err != nil {
		return err
	}
	defer ref.Release()
	if err := vmware.CheckComplete(m); err != nil {
		return err
	}
	err = ref.powerOn(ctx, m.LaunchGUI)
	switch {
	case isCode(err, vmware.CodeLocked) && d.locks.AwaitExit(ctx, m.Dir):
		err = ref.powerOn(ctx, m.LaunchGUI)
	case isCode(err, vmware.CodeNoDisplay) && m.LaunchGUI:
		d.log.Warn("no display for launch_gui; starting without a window", "vm", m.ID)
		err = ref.powerOn(ctx, false)
	}
	if err == nil {
		d.locks.Learn(m)
	}
	return err
}
