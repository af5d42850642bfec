package qemu

import (
	"fmt"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// hardware is the machine that an image expects, in the words of its .vmx.
type hardware struct {
	GuestOS  string `json:"guest_os"`
	Firmware string `json:"firmware"` // "bios" or "efi"
	Disks    []disk `json:"disks"`
	NIC      string `json:"nic"` // model of the first NIC, or "" if there is none
}

// disk is one hard disk and where it is plugged in.
type disk struct {
	Bus        string `json:"bus"` // "scsi", "sata", "ide" or "nvme"
	Controller int    `json:"controller"`
	Unit       int    `json:"unit"`
	Adapter    string `json:"adapter"` // the SCSI controller's model, or ""

	Overlay string   `json:"overlay"`        // qcow2 file in Machine.Dir
	Backing []string `json:"backing"`        // absolute paths of the VMDK files under it, the uppermost first
	Base    string   `json:"base,omitempty"` // absolute path of the qcow2 file made of those, which is then under it alone
	Size    int64    `json:"size"`           // bytes

	slow bool // a layer is sparse or compressed
}

// slot is the disk's place in the .vmx, for instance "scsi0:1".
func (d disk) slot() string { return fmt.Sprintf("%s%d:%d", d.Bus, d.Controller, d.Unit) }

// scsiModels are QEMU's controllers for those of VMware, with the unit numbers
// that each can take. VMware's LSI Logic is a 53C1030, which QEMU has not; the
// 53C895A is its nearest kin that BIOS and common guests can drive.
var scsiModels = map[string]struct {
	device string
	units  int
}{
	"pvscsi":     {"pvscsi", 64},
	"lsisas1068": {"mptsas1068", 8},
	"lsilogic":   {"lsi53c895a", 7},
}

// nicModels are QEMU's devices for VMware's network adapters.
var nicModels = map[string]string{
	"e1000":   "e1000",
	"e1000e":  "e1000e",
	"vmxnet3": "vmxnet3",
	"vlance":  "pcnet",
}

// mapHardware turns a .vmx file's hardware into what QEMU can give a guest. An
// error is an *vm.Error that names the device at fault.
func mapHardware(from vmx.Hardware) (hardware, error) {
	h := hardware{GuestOS: from.GuestOS, Firmware: from.Firmware}
	for i, d := range from.Disks {
		h.Disks = append(h.Disks, disk{
			Bus: d.Bus, Controller: d.Controller, Unit: d.Unit, Adapter: d.Adapter,
			Overlay: fmt.Sprintf("disk%d.qcow2", i),
		})
		if err := checkDisk(h.Disks[i]); err != nil {
			return hardware{}, err
		}
	}
	if len(h.Disks) == 0 {
		return hardware{}, invalid("the image's .vmx has no hard disk to boot from")
	}
	if len(from.NICs) > 0 {
		h.NIC = from.NICs[0].Model
		if nicModels[h.NIC] == "" {
			return hardware{}, invalid("network adapter %q has no counterpart in QEMU; e1000, e1000e, vmxnet3 and vlance have", h.NIC)
		}
	}
	return h, nil
}

// checkDisk says whether QEMU has a place for the disk.
func checkDisk(d disk) error {
	units := 0
	switch d.Bus {
	case "scsi":
		model, known := scsiModels[d.Adapter]
		if !known {
			return invalid("disk %s is on a %q controller, which has no counterpart in QEMU; pvscsi, lsisas1068 and lsilogic have", d.slot(), d.Adapter)
		}
		units = model.units
	case "sata":
		units = 6
	case "ide":
		units = 2
		if d.Controller > 1 {
			return invalid("disk %s does not fit: QEMU's PC has IDE controllers 0 and 1", d.slot())
		}
	case "nvme":
		units = 64
	default:
		return invalid("disk %s is on a bus that has no counterpart in QEMU; scsi, sata, ide and nvme have", d.slot())
	}
	if d.Unit >= units {
		return invalid("disk %s does not fit: QEMU's controller has places 0 to %d", d.slot(), units-1)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &vm.Error{Code: vm.CodeImageInvalid, Message: fmt.Sprintf(format, args...)}
}
