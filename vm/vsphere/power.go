package vsphere

import (
	"context"
	"fmt"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

var _ vm.Powerer = (*Driver)(nil)

// Start implements [vm.Driver].
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	return d.change(ctx, m, "powering on", types.VirtualMachinePowerStatePoweredOn, func(ctx context.Context, s *site, at ref) (ref, error) {
		res, err := methods.PowerOnVM_Task(ctx, s.client, &types.PowerOnVM_Task{This: at})
		if err != nil {
			return ref{}, err
		}
		return res.Returnval, nil
	})
}

// changeTries is how often a change is tried again while another task changes the machine.
const changeTries = 20

// change runs a task that brings the machine into a state, unless it is in it already. If another task changes the
// machine, it waits for that and tries again.
func (d *Driver) change(ctx context.Context, m vm.Machine, what string, target types.VirtualMachinePowerState, begin func(context.Context, *site, ref) (ref, error)) error {
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	for delay, tries := 50*time.Millisecond, 0; ; delay, tries = min(2*delay, time.Second), tries+1 {
		var c *found
		if c, err = d.existing(ctx, s, m, "runtime.powerState", "recentTask"); err != nil {
			break
		}
		if c.Runtime.PowerState == target {
			return nil
		}
		var task ref
		if task, err = begin(ctx, s, c.at); err == nil {
			_, err = wait(ctx, s.client, task)
		}
		if tries == changeTries || !isFault[*types.TaskInProgress](err) && !isFault[*types.InvalidPowerState](err) {
			break
		}
		if err := settle(ctx, s.client, c.RecentTask); err != nil {
			return d.explain(what, err)
		}
		if !sleep(ctx, delay) {
			err = context.Cause(ctx)
			break
		}
	}
	return d.explain(what, err)
}

// existing returns a machine that is complete. Otherwise the error is the client's.
func (d *Driver) existing(ctx context.Context, s *site, m vm.Machine, paths ...string) (*found, error) {
	c, err := d.findMachine(ctx, s, m.ID, paths...)
	if err == nil && (c == nil || !c.whole()) {
		return nil, &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("machine %s does not exist on vSphere", m.ID)}
	}
	return c, err
}

// Power implements [vm.Powerer].
func (d *Driver) Power(ctx context.Context, m vm.Machine, a vm.Action) error {
	switch a {
	case vm.ActionResume:
		return d.Start(ctx, m) // powering on continues a suspended machine
	case vm.ActionShutdown:
		return d.shutdown(ctx, m)
	case vm.ActionReset:
		return d.change(ctx, m, "resetting", "", func(ctx context.Context, s *site, at ref) (ref, error) {
			res, err := methods.ResetVM_Task(ctx, s.client, &types.ResetVM_Task{This: at})
			if err != nil {
				return ref{}, err
			}
			return res.Returnval, nil
		})
	case vm.ActionSuspend:
		return d.change(ctx, m, "suspending", types.VirtualMachinePowerStateSuspended, func(ctx context.Context, s *site, at ref) (ref, error) {
			res, err := methods.SuspendVM_Task(ctx, s.client, &types.SuspendVM_Task{This: at})
			if err != nil {
				return ref{}, err
			}
			return res.Returnval, nil
		})
	}
	return d.change(ctx, m, "powering off", types.VirtualMachinePowerStatePoweredOff, func(ctx context.Context, s *site, at ref) (ref, error) {
		res, err := methods.PowerOffVM_Task(ctx, s.client, &types.PowerOffVM_Task{This: at})
		if err != nil {
			return ref{}, err
		}
		return res.Returnval, nil
	})
}

// shutdown asks the guest to shut down, for which its tools must run.
func (d *Driver) shutdown(ctx context.Context, m vm.Machine) error {
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	c, err := d.existing(ctx, s, m, "runtime.powerState")
	if err == nil && c.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
		return nil
	}
	if err == nil {
		_, err = methods.ShutdownGuest(ctx, s.client, &types.ShutdownGuest{This: c.at})
	}
	switch {
	case isFault[*types.InvalidPowerState](err):
		return nil // it is off by now
	case isFault[*types.ToolsUnavailable](err):
		return &vm.Error{Code: vm.CodePower, Message: fmt.Sprintf("the guest of machine %s runs no VMware Tools, so it cannot be asked to shut down; install open-vm-tools in the image, or use the action off", m.ID), Err: err}
	}
	return d.explain("shutting the guest down", err)
}
