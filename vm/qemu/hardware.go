package qemu

import (
	"cmp"
	"fmt"
	"slices"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/vmx"
)

// The mainboards. A machine keeps its board: guests name devices after their place on it.
const (
	boardPC   = "pc"   // Intel 440BX, without PCI Express; the board of all machines of earlier versions
	boardQ35  = "q35"  // Intel Q35 with PCI Express
	boardVirt = "virt" // QEMU's own, for ARM
)

// hardware is the machine that an image expects, in the terms of its .vmx file.
type hardware struct {
	GuestOS    string      `json:"guest_os"`
	Firmware   string      `json:"firmware"` // "bios" or "efi"
	Board      string      `json:"board"`
	SecureBoot bool        `json:"secure_boot,omitempty"`
	TPM        bool        `json:"tpm,omitempty"`
	LocalTime  bool        `json:"local_time,omitempty"` // the guest expects its clock in local time
	Disks      []disk.Disk `json:"disks"`
	NICs       []nic       `json:"nics"`

	OnlyNIC string `json:"nic,omitempty"` // the model of the first NIC, as earlier versions recorded it
}

// nic is a network card.
type nic struct {
	Model   string         `json:"model"`             // VMware's name of it
	Device  string         `json:"device"`            // QEMU's
	Slot    int            `json:"slot,omitempty"`    // number of the PCI slot as the guest sees it, 0 for any
	Network vm.NetworkType `json:"network,omitempty"` // "" for the first one, whose network is that of the request
}

// network returns the type of the network that the NIC of m is attached to.
func (n nic) network(m vm.Machine) vm.NetworkType { return cmp.Or(n.Network, m.Network) }

// upgrade fills in what a version before the boards did not record.
func (h *hardware) upgrade() {
	if h.Board != "" {
		return
	}
	from := vmx.Hardware{GuestOS: h.GuestOS}
	h.Board, h.LocalTime = boardPC, from.IsWindows()
	if h.OnlyNIC != "" {
		h.NICs = []nic{{Model: h.OnlyNIC, Device: nicModels[h.OnlyNIC].device}}
	}
}

// mapping converts a .vmx file's hardware to QEMU's.
type mapping struct {
	from     vmx.Hardware
	to       hardware
	networks networkBackends
	warnings vm.Warnings
}

// mapHardware converts a .vmx file's hardware to QEMU's. The error is a *vm.Error that names the device at fault.
func mapHardware(from vmx.Hardware, networks networkBackends) (hardware, vm.Warnings, error) {
	m := mapping{from: from, networks: networks}
	m.to = hardware{GuestOS: from.GuestOS, Firmware: from.Firmware, Board: boardQ35, TPM: from.TPM, LocalTime: from.IsWindows()}
	switch {
	case from.IsMacOS():
		return hardware{}, nil, disk.InvalidImage("the image is a macOS guest (guestOS is %q): Apple allows macOS only on Apple's computers, and QEMU has "+
			"no firmware for it; run this image with VMware Fusion on a Mac", from.GuestOS)
	case from.IsARM():
		m.to.Board, m.to.Firmware = boardVirt, "efi"
	case !from.HasPCIExpress():
		m.to.Board = boardPC
	}
	if err := m.mapDisks(); err != nil {
		return hardware{}, nil, err
	}
	m.mapNICs()
	if err := m.checkSlots(); err != nil {
		return hardware{}, nil, err
	}
	m.warnFirmware()
	for _, what := range from.HostAccess {
		if vmx.IsFirstSerialPort(what) { // every machine has one, whose output is its console
			continue
		}
		m.warnings.Add(vm.WarningDeviceLeftOut, "%s", what)
	}
	for _, what := range from.Remarks {
		m.warnings.Add(vm.WarningOVFLeftOut, "%s", what)
	}
	return m.to, m.warnings, nil
}

// maxPCIDevices is how many disk controllers and NICs the first bus of a board has room for, besides the board's own
// devices and those that every machine has.
const maxPCIDevices = 24

func (m *mapping) checkSlots() error {
	var controllers []string
	for _, d := range m.to.Disks {
		if name := fmt.Sprint(d.Bus, d.Controller); !slices.Contains(controllers, name) {
			controllers = append(controllers, name)
		}
	}
	if n := len(controllers) + len(m.to.NICs); n > maxPCIDevices {
		return disk.InvalidImage("the machine has %d disk controllers and network cards; QEMU's board has room for %d: "+
			"put more disks on each controller", n, maxPCIDevices)
	}
	return nil
}

func (m *mapping) warnFirmware() {
	if m.from.SecureBoot && m.to.Firmware == "efi" {
		if _, ok := installed(secureFirmwares()); ok && m.to.Board == boardQ35 {
			m.to.SecureBoot = true
		} else {
			m.warnings.Add(vm.WarningSecureBootOff, "the image asks for Secure Boot, and this host has no firmware with Microsoft's keys for it; "+
				"on Debian and Ubuntu the package ovmf has it for x86")
		}
	}
}
