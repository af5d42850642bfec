//go:build vix && cgo && !windows

package vix

import (
	"context"
	"net/netip"
	"os"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

// Inspect implements vm.Driver.
func (d *Driver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	if made, err := isMade(m); !made || err != nil {
		return vm.Status{}, err
	}
	h, err := d.take(ctx, vmxPath(m), d.Deadlines.Look)
	if err != nil {
		return vm.Status{}, unreadable(err)
	}
	defer h.drop()
	if made, err := isMade(m); !made || err != nil {
		return vm.Status{}, err // destroyed while this waited
	}
	seen := make(chan vm.Status, 1)
	err = h.do(ctx, "tell the machine's state", d.Deadlines.Look, func() error {
		st, err := d.look(h)
		seen <- st
		return err
	})
	if err != nil {
		return vm.Status{}, unreadable(err)
	}
	st := <-seen
	st.MAC = macAddress(vmxPath(m))
	if st.Power != vm.PoweredOff && st.Power != vm.Suspended {
		st.IP = d.address(st, m.Network)
	}
	st.Up = st.Tools == vm.ToolsRunning || st.IP != ""
	return st, nil
}

// look reads what VIX knows of an open machine. It blocks.
func (d *Driver) look(h *hold) (st vm.Status, err error) {
	bits, err := h.vm.PowerState()
	if err != nil {
		return st, err
	}
	st.Power = power(bits)
	if st.GuestOS, err = h.vm.GuestOS(); err != nil {
		return st, err
	}
	cpus, err := h.vm.Vcpus()
	if err != nil {
		return st, err
	}
	memory, err := h.vm.MemorySize()
	if err != nil {
		return st, err
	}
	st.CPUs, st.Memory = int(cpus), int(memory)
	st.Tools = vm.ToolsNotRunning
	if st.Power == vm.PoweredOff || st.Power == vm.Suspended {
		h.tools = nil
		return st, nil
	}
	if h.tools.due() {
		h.tools = d.awaitTools(h.path)
	}
	if st.Tools, err = toolsState(h, bits); err != nil {
		return st, err
	}
	// Before the guest has an address this is an error or empty.
	st.IP, _ = h.vm.ReadVariable(govix.VM_GUEST_VARIABLE, "ip")
	return st, nil
}

func toolsState(h *hold, bits govix.VMPowerState) (vm.Tools, error) {
	if bits&govix.POWERSTATE_TOOLS_RUNNING != 0 {
		return vm.ToolsRunning, nil
	}
	if !h.tools.known() {
		return vm.ToolsUnknown, nil
	}
	state, err := h.vm.ToolsState()
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

// Bits of the power state that VIX has and govix does not name.
const (
	powerPaused   govix.VMPowerState = 0x0200
	powerResuming govix.VMPowerState = 0x0800
)

// power tells the state of the bits, of which several may be set and some mean
// nothing. What is under way comes before what was reached.
func power(bits govix.VMPowerState) vm.Power {
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

// macAddress is that of the first card, from the .vmx into which VMware writes
// the address that it makes.
func macAddress(vmx string) string {
	f, err := readVMX(vmx)
	if err != nil {
		return ""
	}
	hardware, err := f.Hardware()
	if err != nil || len(hardware.NICs) == 0 {
		return ""
	}
	return hardware.NICs[0].MAC
}

// address is the one that VIX tells, or else that of the card's lease.
func (d *Driver) address(st vm.Status, t vm.NetworkType) string {
	if usable(st.IP, t) {
		return st.IP
	}
	leases, err := os.ReadFile(d.Leases[t])
	if err != nil {
		return "" // VMware has no such network, or no lease yet
	}
	return Lease(leases, st.MAC, time.Now())
}

// usable reports whether VIX's answer is the guest's address. On networks of
// VMware's own it can be the host's, which ends in 1.
func usable(ip string, t vm.NetworkType) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.IsLoopback() || addr.IsUnspecified() {
		return false
	}
	return t == vm.Bridged || !addr.Is4() || addr.As4()[3] != 1
}
