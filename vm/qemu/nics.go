package qemu

import (
	"crypto/sha256"
	"fmt"
	"net"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// nicModels maps VMware's network adapters to QEMU's devices. VMware's old vmxnet needs a driver of VMware Tools, and
// flexible is a vlance until that driver takes it over.
var nicModels = map[string]struct {
	device   string
	replaces bool // it is not the same device
}{
	"e1000":    {"e1000", false},
	"e1000e":   {"e1000e", false},
	"vmxnet3":  {"vmxnet3", false},
	"vlance":   {"pcnet", false},
	"flexible": {"pcnet", true},
	"vmxnet":   {"e1000", true},
}

// mapNICs gives the machine the network cards of the image.
func (m *mapping) mapNICs() {
	for i, from := range m.from.NICs {
		model, known := nicModels[from.Model]
		name := fmt.Sprintf("ethernet%d", from.Index)
		if !known {
			model.device, model.replaces = "e1000", true
		}
		if model.replaces {
			m.warnings.Add(vm.WarningDeviceReplaced, "%s: the machine has the model %s instead of %q, which QEMU does not have",
				name, model.device, from.Model)
		}
		n := nic{Model: from.Model, Device: model.device}
		if m.to.Board != boardPC {
			n.Slot = from.Slot
		}
		if i > 0 {
			n.Network = m.networkOf(name, from)
		}
		m.to.NICs = append(m.to.NICs, n)
	}
}

// networkOf returns the network for a further NIC. It is that of the image if this host has it.
func (m *mapping) networkOf(name string, from vmx.NIC) vm.NetworkType {
	network, replaced := from.Network()
	if replaced {
		m.warnings.Add(vm.WarningNetworkReplaced, "%s: the card is on the hostonly network instead of the image's network of type %q", name, from.Connection)
	}
	if _, err := m.networks.forType(vm.NetworkType(network)); err != nil {
		m.warnings.Add(vm.WarningNetworkReplaced, "%s: the card is on the hostonly network, because this host has no %s network for it", name, network)
		return vm.HostOnly
	}
	return vm.NetworkType(network)
}

// macAddress returns the MAC address of the machine's first NIC, which never changes. Its first byte, 0x52, marks it as
// locally administered and unicast. The other bytes are a hash of the id.
func macAddress(id string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(id))
	return net.HardwareAddr{0x52, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// macOf is [macAddress] for the NIC with index i.
func macOf(id string, i int) net.HardwareAddr {
	if i == 0 {
		return macAddress(id)
	}
	return macAddress(fmt.Sprintf("%s nic %d", id, i))
}

// nicOptions returns the options of the NICs. netdevs are those of their networks, without their ids. Each NIC with a
// slot is behind a PCI Express port of its own with that slot's number.
func nicOptions(s setup) (args []string) {
	for i, n := range s.NICs {
		bus := ""
		if n.Slot > 0 {
			args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=port%d,slot=%d,chassis=%d", i, n.Slot, i+1))
			bus = fmt.Sprintf("bus=port%d,", i)
		}
		mac := macOf(s.ID, i).String()
		if i == 0 && s.mac != "" {
			mac = s.mac
		}
		kind, options, _ := strings.Cut(s.netdevs[i], ",")
		// Without a ROM the firmware does not boot from the network, and the machine starts faster.
		args = append(args,
			"-netdev", fmt.Sprintf("%s,id=net%d,%s", kind, i, options),
			"-device", fmt.Sprintf("%s,netdev=net%d,mac=%s,%sromfile=", n.Device, i, mac, bus))
	}
	return args
}
