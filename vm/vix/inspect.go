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

// Inspect implements [vm.Driver].
func (d *Driver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	if complete, err := isComplete(m); !complete || err != nil {
		return vm.Status{}, err
	}
	ref, err := d.vms.acquire(ctx, vmxPath(m), d.deadlines.Read)
	if err != nil {
		return vm.Status{}, unreadable(err)
	}
	defer ref.release()
	if complete, err := isComplete(m); !complete || err != nil {
		return vm.Status{}, err // destroyed while acquire waited
	}
	statuses := make(chan vm.Status, 1)
	err = ref.call(ctx, "read the machine's state", d.deadlines.Read, func() error {
		st, err := ref.status()
		statuses <- st
		return err
	})
	if err != nil {
		return vm.Status{}, unreadable(err)
	}
	st := <-statuses
	c, err := readComplete(m)
	if err != nil {
		return vm.Status{}, err
	}
	st.Warnings, st.NICs = c.Warnings, nics(vmxPath(m))
	if len(st.NICs) > 0 {
		st.MAC = st.NICs[0].MACAddress
	}
	if st.Power != vm.PoweredOff && st.Power != vm.Suspended {
		st.IP = d.address(st, m.Network)
		d.fillAddresses(&st)
	}
	st.Up = st.Tools == vm.ToolsRunning || st.IP != ""
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
		r.tools = nil
		return st, nil
	}
	if r.tools.isDue() {
		r.tools = r.vms.conn.waitForTools(r.path)
	}
	if st.Tools, err = r.toolsState(bits); err != nil {
		return st, err
	}
	// Before the guest has an address, the variable is empty or an error.
	st.IP, _ = r.vm.ReadVariable(govix.VM_GUEST_VARIABLE, "ip")
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

// nics returns the machine's NICs. VMware writes the MAC addresses that it generates into the .vmx.
func nics(vmx string) []vm.NIC {
	f, err := readVMX(vmx)
	if err != nil {
		return nil
	}
	hardware, err := f.Hardware()
	if err != nil {
		return nil
	}
	var all []vm.NIC
	for _, n := range hardware.NICs {
		all = append(all, vm.NIC{Model: n.Model, MACAddress: n.MAC, NetworkType: vm.NetworkType(n.Connection)})
	}
	return all
}

// fillAddresses gives the first NIC the machine's address, and the others those of their leases.
func (d *Driver) fillAddresses(st *vm.Status) {
	for i := range st.NICs {
		if n := &st.NICs[i]; i == 0 {
			n.IPAddress = st.IP
		} else {
			n.IPAddress = d.lease(n.MACAddress, n.NetworkType)
		}
	}
}

// address returns the address that VIX reports, or otherwise the one of the NIC's lease.
func (d *Driver) address(st vm.Status, t vm.NetworkType) string {
	if isGuestAddress(st.IP, t) {
		return st.IP
	}
	return d.lease(st.MAC, t)
}

// lease returns the address that VMware's DHCP server gave to a NIC, or "".
func (d *Driver) lease(mac string, t vm.NetworkType) string {
	leases, err := os.ReadFile(d.leases[t])
	if err != nil {
		return "" // VMware has no such network, or no lease yet
	}
	return Lease(leases, mac, time.Now())
}

// isGuestAddress reports whether the address that VIX reports is the guest's. On VMware's own networks it can be the
// host's, which ends in 1.
func isGuestAddress(ip string, t vm.NetworkType) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.IsLoopback() || addr.IsUnspecified() {
		return false
	}
	return t == vm.Bridged || !addr.Is4() || addr.As4()[3] != 1
}
