package vsphere

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// statusProperties are those that a machine's status is made of.
var statusProperties = []string{
	"config.hardware.numCPU", "config.hardware.memoryMB", "config.hardware.device", "runtime.powerState", "runtime.question",
	"guest.toolsRunningStatus", "guest.ipAddress", "guest.net",
}

// Inspect implements [vm.Driver]. It takes one call for a machine that this process has read before.
func (d *Driver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	s, err := d.site(ctx)
	if err != nil {
		return vm.Status{}, err
	}
	c, err := d.findMachine(ctx, s, m.ID, statusProperties...)
	if err != nil {
		return vm.Status{}, d.explain("reading the machine's state", err)
	}
	return d.status(c), nil
}

// status returns a machine's state. It is the zero Status for a machine that is not complete or not of this data folder.
func (d *Driver) status(c *found) vm.Status {
	if c == nil || !c.whole() || c.marks[markOwner] != d.owner {
		return vm.Status{}
	}
	st := vm.Status{
		Power: vm.PoweredOff, Tools: vm.ToolsNotRunning, GuestOS: c.marks[markGuestOS],
		CPUs: int(c.Config.Hardware.NumCPU), Memory: int(c.Config.Hardware.MemoryMB), NICs: nics(c), Warnings: decodeWarnings(c.marks[markWarnings]),
	}
	if len(st.NICs) > 0 {
		st.MAC = st.NICs[0].MACAddress
	}
	switch c.Runtime.PowerState {
	case types.VirtualMachinePowerStateSuspended:
		st.Power = vm.Suspended
		return st
	case types.VirtualMachinePowerStatePoweredOn:
		st.Power = vm.PoweredOn
	default:
		return st
	}
	if c.Runtime.Question != nil {
		st.Power = vm.Blocked
	}
	if c.Guest == nil {
		return st
	}
	if c.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning) {
		st.Tools = vm.ToolsRunning
	}
	st.Addresses = addresses(c.Guest)
	if len(st.Addresses) > 0 {
		st.IP = st.Addresses[0]
	}
	for i := range st.NICs {
		st.NICs[i].IPAddress = nicAddress(c.Guest, st.NICs[i].MACAddress)
	}
	if st.IP != "" && len(st.NICs) > 0 {
		st.NICs[0].IPAddress = st.IP
	}
	st.Up = st.Tools == vm.ToolsRunning || st.IP != ""
	return st
}

// addresses returns the guest's addresses: first the one that vSphere prefers, then IPv4 ones. Addresses of its own link
// and of loopback are left out.
func addresses(g *types.GuestInfo) []string {
	list := []string{g.IpAddress}
	for _, nic := range g.Net {
		list = append(list, nic.IpAddress...)
	}
	var usable []string
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err == nil && !a.IsLinkLocalUnicast() && !a.IsLoopback() && !a.IsUnspecified() && !slices.Contains(usable, text) {
			usable = append(usable, text)
		}
	}
	if len(usable) == 0 {
		return nil
	}
	rest := usable
	if usable[0] == g.IpAddress {
		rest = usable[1:]
	}
	slices.SortStableFunc(rest, func(a, b string) int { return strings.Count(a, ":") - strings.Count(b, ":") })
	return usable
}
