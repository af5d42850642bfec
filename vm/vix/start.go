//go:build vix && cgo && !windows

package vix

import (
	"context"
	"fmt"

	"osx-builder/vm"
)

// Start implements [vm.Driver].
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	ref, err := d.vms.acquire(ctx, vmxPath(m), d.deadlines.Start)
	if err != nil {
		return err
	}
	defer ref.release()
	if complete, err := isComplete(m); err != nil {
		return err
	} else if !complete {
		return fmt.Errorf("there is no complete machine in %s", m.Dir)
	}
	err = ref.powerOn(ctx, m.LaunchGUI)
	switch {
	case isCode(err, codeLocked) && d.locks.awaitExit(ctx, m.Dir):
		err = ref.powerOn(ctx, m.LaunchGUI)
	case isCode(err, codeNoDisplay) && m.LaunchGUI:
		d.log.Warn("no display for launch_gui; starting without a window", "vm", m.ID)
		err = ref.powerOn(ctx, false)
	}
	return err
}
