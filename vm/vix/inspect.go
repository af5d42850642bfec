//go:build vix && cgo

package vix

import (
	"context"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// Inspect implements [vm.Driver].
func (d *Driver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	if complete, err := vmware.IsComplete(m); !complete || err != nil {
		return vm.Status{}, err
	}
	ref, err := d.vms.acquire(ctx, vmware.VMXPath(m), d.deadlines.Read)
	if err != nil {
		return vm.Status{}, vmware.Unreadable(err)
	}
	defer ref.Release()
	if complete, err := vmware.IsComplete(m); !complete || err != nil {
		return vm.Status{}, err // destroyed while acquire waited
	}
	statuses := make(chan vm.Status, 1)
	err = ref.call(ctx, "read the machine's state", d.deadlines.Read, func() error {
		st, err := ref.status()
		if err == nil {
			statuses <- st
		}
		return err
	})
	if err != nil {
		return vm.Status{}, vmware.Unreadable(err)
	}
	st := <-statuses
	if err := d.leases.Complete(&st, m); err != nil {
		return vm.Status{}, err
	}
	return st, nil
}

// status reads what VIX knows of the machine. It is called in [vmRef.call].
func (r *vmRef) status() (st vm.Status, err error) {
	bits, err := r.vm.PowerState()
	if err != nil {
		return st, err
	}
	st.Power = powerOf(bits)
	if st.GuestOS, err = r.vm.GuestOS(); err != nil {
		return st, err
	}
	cpus, err := r.vm.Vcpus()
	if err != nil {
		return st, err
	}
	memory, err := r.vm.MemorySize()
	if err != nil {
		return st, err
	}
	st.CPUs, st.Memory = int(cpus), int(memory)
	st.Tools = vm.ToolsNotRunning
	if st.Power == vm.PoweredOff || st.Power == vm.Suspended {
		r.tools, r.address = nil, nil
		return st, nil
	}
	if r.tools.isDue() {
		r.tools = r.vms.conn.waitForTools(r.path)
	}
	if st.Tools, err = r.toolsState(bits); err != nil {
		return st, err
	}
	st.IP = r.guestAddress()
	return st, nil
}

func (r *vmRef) toolsState(bits govix.VMPowerState) (vm.Tools, error) {
	if bits&govix.POWERSTATE_TOOLS_RUNNING != 0 {
		return vm.ToolsRunning, nil
	}
	if !r.tools.isKnown() {
		return vm.ToolsUnknown, nil
	}
	state, err := r.vm.ToolsState()
	switch {
	case err != nil:
		return "", err
	case state&govix.TOOLSSTATE_RUNNING != 0:
		return vm.ToolsRunning, nil
	case state&govix.TOOLSSTATE_NOT_INSTALLED != 0:
		return vm.ToolsNotRunning, nil
	}
	return vm.ToolsUnknown, nil
}

// Bits of the power state that govix does not define.
const (
	powerPaused   govix.VMPowerState = 0x0200
	powerResuming govix.VMPowerState = 0x0800
)

// powerOf returns the power state for VIX's bits. Several bits may be set, and some have no meaning. A transition takes
// precedence over a state.
func powerOf(bits govix.VMPowerState) vm.Power {
	for _, p := range []struct {
		bit   govix.VMPowerState
		power vm.Power
	}{
		{govix.POWERSTATE_BLOCKED_ON_MSG, vm.Blocked},
		{govix.POWERSTATE_RESETTING, vm.Resetting},
		{govix.POWERSTATE_SUSPENDING, vm.Suspending},
		{govix.POWERSTATE_POWERING_OFF, vm.PoweringOff},
		{govix.POWERSTATE_POWERING_ON, vm.PoweringOn},
		{powerResuming, vm.PoweringOn},
		{powerPaused, vm.Paused},
		{govix.POWERSTATE_SUSPENDED, vm.Suspended},
		{govix.POWERSTATE_POWERED_ON, vm.PoweredOn},
	} {
		if bits&p.bit != 0 {
			return p.power
		}
	}
	return vm.PoweredOff
}
