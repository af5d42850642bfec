package qemu

import (
	"fmt"

	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/vmx"
)

// hardware is the machine that an image expects, in the terms of its .vmx file.
type hardware struct {
	GuestOS  string      `json:"guest_os"`
	Firmware string      `json:"firmware"` // "bios" or "efi"
	Disks    []disk.Disk `json:"disks"`
	NIC      string      `json:"nic"` // model of the first NIC, or "" if there is none
}

// scsiModels maps VMware's controllers to QEMU's, with the number of units of
// each. VMware's LSI Logic is a 53C1030, which QEMU does not have. The 53C895A is
// the closest model for which the BIOS and common guests have drivers.
var scsiModels = map[string]struct {
	device string
	units  int
}{
	"pvscsi":     {"pvscsi", 64},
	"lsisas1068": {"mptsas1068", 8},
	"lsilogic":   {"lsi53c895a", 7},
}

// nicModels maps VMware's network adapters to QEMU's devices.
var nicModels = map[string]string{
	"e1000":   "e1000",
	"e1000e":  "e1000e",
	"vmxnet3": "vmxnet3",
	"vlance":  "pcnet",
}

// mapHardware converts a .vmx file's hardware to QEMU's. The error is a *vm.Error
// that names the device at fault.
func mapHardware(from vmx.Hardware) (hardware, error) {
	h := hardware{GuestOS: from.GuestOS, Firmware: from.Firmware}
	for i, d := range from.Disks {
		h.Disks = append(h.Disks, disk.Disk{
			Bus: d.Bus, Controller: d.Controller, Unit: d.Unit, Adapter: d.Adapter,
			Overlay: fmt.Sprintf("disk%d.qcow2", i),
		})
		if err := checkDisk(h.Disks[i]); err != nil {
			return hardware{}, err
		}
	}
	if len(h.Disks) == 0 {
		return hardware{}, disk.InvalidImage("the image's .vmx has no hard disk to boot from")
	}
	if len(from.NICs) > 0 {
		h.NIC = from.NICs[0].Model
		if nicModels[h.NIC] == "" {
			return hardware{}, disk.InvalidImage("network adapter %q has no counterpart in QEMU; use e1000, e1000e, vmxnet3 or vlance", h.NIC)
		}
	}
	return h, nil
}

// checkDisk returns an error if QEMU has no place for the disk.
func checkDisk(d disk.Disk) error {
	units := 0
	switch d.Bus {
	case "scsi":
		model, known := scsiModels[d.Adapter]
		if !known {
			return disk.InvalidImage("disk %s is on a %q controller, which has no counterpart in QEMU; use pvscsi, lsisas1068 or lsilogic", d.Slot(), d.Adapter)
		}
		units = model.units
	case "sata":
		units = 6
	case "ide":
		units = 2
		if d.Controller > 1 {
			return disk.InvalidImage("disk %s does not fit: QEMU's PC has IDE controllers 0 and 1", d.Slot())
		}
	case "nvme":
		units = 64
	default:
		return disk.InvalidImage("disk %s is on a bus that has no counterpart in QEMU; use scsi, sata, ide or nvme", d.Slot())
	}
	if d.Unit >= units {
		return disk.InvalidImage("disk %s does not fit: QEMU's controller has units 0 to %d", d.Slot(), units-1)
	}
	return nil
}
