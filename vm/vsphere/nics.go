package vsphere

import (
	"encoding/json"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// maxWarningsText bounds the warnings in a machine's extra configuration, in bytes.
const maxWarningsText = 8 << 10

// knownNICs are the models of NICs that vSphere has.
var knownNICs = map[string]bool{"e1000": true, "e1000e": true, "vmxnet2": true, "vmxnet3": true, "vlance": true}

// differences returns the network type of each NIC, and how the machine differs from its image. The first NIC is on the
// network that was asked for. Each other stays on the image's if there is a port group for that.
func differences(s *site, m vm.Machine, h vmx.Hardware) (networks []string, warnings vm.Warnings) {
	for _, what := range h.Remarks {
		warnings.Add(vm.WarningOVFLeftOut, "%s", what)
	}
	for _, what := range h.HostAccess {
		warnings.Add(vm.WarningDeviceLeftOut, "%s", what)
	}
	for i, n := range h.NICs {
		network := string(m.Network)
		if _, known := s.networks[vm.NetworkType(n.Connection)]; known && i > 0 {
			network = n.Connection
		} else if i > 0 && n.Connection != network {
			warnings.Add(vm.WarningNetworkReplaced, "ethernet%d is on the network %s instead of %s, for which there is no port group", n.Index, network, n.Connection)
		}
		networks = append(networks, network)
		if !knownNICs[n.Model] {
			warnings.Add(vm.WarningDeviceReplaced, "ethernet%d is an e1000 instead of %q, which vSphere does not have", n.Index, n.Model)
		}
	}
	return networks, warnings
}

// encodeWarnings returns the warnings as JSON, without the last ones if that would be too long.
func encodeWarnings(w vm.Warnings) string {
	for ; len(w) > 0; w = w[:len(w)-1] {
		if b, err := json.Marshal(w); err == nil && len(b) <= maxWarningsText {
			return string(b)
		}
	}
	return ""
}

func decodeWarnings(text string) (w vm.Warnings) {
	_ = json.Unmarshal([]byte(text), &w) // "" means none
	return w
}

// nics returns a machine's NICs without their guest's addresses.
func nics(c *found) []vm.NIC {
	networks := strings.Split(c.marks[markNICs], ",")
	var list []vm.NIC
	for _, device := range c.Config.Hardware.Device {
		nic, ok := device.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		n := vm.NIC{Model: nicModel(device), MACAddress: strings.ToLower(nic.GetVirtualEthernetCard().MacAddress)}
		if len(list) < len(networks) {
			n.NetworkType = vm.NetworkType(networks[len(list)])
		}
		list = append(list, n)
	}
	return list
}

// nicModel returns the name of a NIC's model in a .vmx file.
func nicModel(device types.BaseVirtualDevice) string {
	switch device.(type) {
	case *types.VirtualE1000:
		return "e1000"
	case *types.VirtualE1000e:
		return "e1000e"
	case *types.VirtualVmxnet2:
		return "vmxnet2"
	case *types.VirtualVmxnet3:
		return "vmxnet3"
	case *types.VirtualPCNet32:
		return "vlance"
	}
	return "unknown"
}

// nicAddress returns an address of the guest on the NIC with a MAC address, or "".
func nicAddress(g *types.GuestInfo, mac string) string {
	for _, nic := range g.Net {
		if strings.EqualFold(nic.MacAddress, mac) {
			if list := addresses(&types.GuestInfo{Net: []types.GuestNicInfo{nic}}); len(list) > 0 {
				return list[0]
			}
		}
	}
	return ""
}
