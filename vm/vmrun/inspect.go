package vmrun

import (
	"context"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// Inspect implements [vm.Driver]. It does not wait for calls that change the machine.
func (d *Driver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	if complete, err := vmware.IsComplete(m); !complete || err != nil {
		return vm.Status{}, err
	}
	running, err := d.isRunning(ctx, m)
	if complete, completeErr := vmware.IsComplete(m); !complete || completeErr != nil {
		return vm.Status{}, completeErr // destroyed meanwhile
	}
	if err != nil {
		return vm.Status{}, vmware.Unreadable(err)
	}
	st := vm.Status{Power: vm.PoweredOff, Tools: vm.ToolsNotRunning}
	switch {
	case running:
		st.Power = vm.PoweredOn
		g := d.guests.state(m)
		st.Tools, st.IP = g.tools, g.ip
	case isSuspended(m):
		st.Power = vm.Suspended
	}
	if err := vmware.ReadSettings(&st, m); err != nil {
		return vm.Status{}, vmware.Unreadable(err)
	}
	if err := d.leases.Complete(&st, m); err != nil {
		return vm.Status{}, err
	}
	return st, nil
}
