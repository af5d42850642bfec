package qemu

import (
	"fmt"
	"slices"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/vmx"
)

// scsiModels maps VMware's controllers to QEMU's, with the number of units of each. VMware's LSI Logic is a 53C1030,
// which QEMU does not have. The 53C895A is the closest model for which the BIOS and Linux have drivers. BusLogic's are
// not in QEMU either.
var scsiModels = map[string]struct {
	device string
	units  int
}{
	"pvscsi":     {"pvscsi", 64},
	"lsisas1068": {"mptsas1068", 8},
	"lsilogic":   {"lsi53c895a", 7},
	"buslogic":   {"lsi53c895a", 7},
}

// Units of the controllers of other buses. VMware's SATA controllers have 30.
const (
	sataUnits = 6
	nvmeUnits = 64
	ideDisks  = 4
)

// furtherController is added to a controller's number for each further QEMU controller that its disks need.
const furtherController = 10

// mapDisks gives each disk a place on QEMU's controllers.
func (m *mapping) mapDisks() error {
	if len(m.from.Disks) == 0 {
		return disk.InvalidImage("the image's .vmx has no hard disk to boot from")
	}
	for i, d := range m.from.Disks {
		to := disk.Disk{Bus: d.Bus, Controller: d.Controller, Unit: d.Unit, Adapter: d.Adapter, Overlay: fmt.Sprintf("disk%d.qcow2", i)}
		var err error
		switch d.Bus {
		case "scsi":
			err = m.placeSCSI(&to)
		case "sata":
			spread(&to, sataUnits)
		case "ide":
			err = m.checkIDE(to)
		case "nvme":
			spread(&to, nvmeUnits)
		default:
			err = disk.InvalidImage("disk %s is on a bus that has no counterpart in QEMU; use scsi, sata, ide or nvme", to.Slot())
		}
		if err != nil {
			return err
		}
		m.to.Disks = append(m.to.Disks, to)
	}
	return nil
}

// spread puts a disk on a further controller if QEMU's have fewer units than VMware's.
func spread(d *disk.Disk, units int) {
	d.Controller += d.Unit / units * furtherController
	d.Unit %= units
}

// placeSCSI chooses the controller for a SCSI disk. It is another one if the guest or the firmware has no driver for
// QEMU's SCSI controller.
func (m *mapping) placeSCSI(d *disk.Disk) error {
	model, known := scsiModels[d.Adapter]
	if !known {
		return disk.InvalidImage("disk %s is on a %q controller, which has no counterpart in QEMU; use pvscsi, lsisas1068, lsilogic or buslogic", d.Slot(), d.Adapter)
	}
	wanted, why := d.Slot(), ""
	switch {
	case m.to.Firmware == "efi":
		why = "the EFI firmware cannot boot from it"
	case model.device == "lsi53c895a" && m.from.IsWindows():
		why = "Windows has no driver for QEMU's model of it"
	case d.Adapter == "buslogic":
		m.warnings.Add(vm.WarningDeviceReplaced, "scsi%d: the machine has an LSI 53C895A instead of a BusLogic controller, which QEMU does not have", d.Controller)
	}
	if why == "" {
		spread(d, model.units)
		return nil
	}
	bus := "SATA"
	if m.to.Firmware == "bios" && m.nextIDE() >= 0 {
		bus = "IDE"
		n := m.nextIDE()
		d.Bus, d.Controller, d.Unit = "ide", n/2, n%2
	} else {
		n := m.nextSATA()
		d.Bus, d.Controller, d.Unit = "sata", n/sataUnits*furtherController, n%sataUnits
	}
	m.warnings.Add(vm.WarningDeviceReplaced, "%s: the disk is on %s instead of %s, because %s", wanted, bus, d.Adapter, why)
	d.Adapter = ""
	return nil
}

// nextIDE returns the number of the first place for an IDE disk that no disk has, or -1.
func (m *mapping) nextIDE() int {
	for n := range ideDisks {
		if !m.occupied("ide", n/2, n%2) {
			return n
		}
	}
	return -1
}

// nextSATA returns the number of the first place on the first SATA controllers that no disk has.
func (m *mapping) nextSATA() int {
	n := 0
	for m.occupied("sata", n/sataUnits*furtherController, n%sataUnits) {
		n++
	}
	return n
}

// occupied reports whether a disk of the image or one that was placed before has this place.
func (m *mapping) occupied(bus string, controller, unit int) bool {
	return slices.ContainsFunc(m.to.Disks, func(d disk.Disk) bool {
		return d.Bus == bus && d.Controller == controller && d.Unit == unit
	}) || slices.ContainsFunc(m.from.Disks, func(d vmx.Disk) bool {
		at := disk.Disk{Controller: d.Controller, Unit: d.Unit}
		if bus == "sata" {
			spread(&at, sataUnits)
		}
		return d.Bus == bus && at.Controller == controller && at.Unit == unit
	})
}

func (m *mapping) checkIDE(d disk.Disk) error {
	if m.to.Board == boardVirt {
		return disk.InvalidImage("disk %s is on an IDE controller, which no ARM machine has; use nvme or sata", d.Slot())
	}
	return nil
}

// controllerDevice returns QEMU's device of the disk's controller, or "" if the board has that controller.
func controllerDevice(board string, d disk.Disk) string {
	switch {
	case d.Bus == "scsi":
		return fmt.Sprintf("%s,id=scsi%d", scsiModels[d.Adapter].device, d.Controller)
	case d.Bus == "nvme":
		return fmt.Sprintf("nvme,serial=nvme%d,id=nvme%d", d.Controller, d.Controller)
	case d.Bus == "sata" && (board != boardQ35 || d.Controller > 0):
		return fmt.Sprintf("ich9-ahci,id=sata%d", d.Controller)
	case d.Bus == "ide" && board == boardQ35:
		return "piix4-ide,id=pata" // VMware's model, with both of its channels
	}
	return ""
}

// worldWideName returns the option for a SAS disk's name: Linux's driver ignores a disk without one. As on VMware, the
// name contains the number that IEEE gave to VMware, 0x000c29.
func worldWideName(d disk.Disk) string {
	if d.Adapter != "lsisas1068" {
		return ""
	}
	return fmt.Sprintf(",wwn=%#x", 0x5000c29_000000000|d.Controller<<8|d.Unit+1)
}

func diskDevice(board string, d disk.Disk) string {
	switch {
	case d.Bus == "scsi":
		return fmt.Sprintf("scsi-hd,bus=scsi%d.0,scsi-id=%d%s", d.Controller, d.Unit, worldWideName(d))
	case d.Bus == "nvme":
		return fmt.Sprintf("nvme-ns,bus=nvme%d,nsid=%d", d.Controller, d.Unit+1)
	case d.Bus == "sata" && (board != boardQ35 || d.Controller > 0):
		return fmt.Sprintf("ide-hd,bus=sata%d.%d", d.Controller, d.Unit)
	case d.Bus == "sata": // the controller of the board
		return fmt.Sprintf("ide-hd,bus=ide.%d", d.Unit)
	case board == boardQ35:
		return fmt.Sprintf("ide-hd,bus=pata.%d,unit=%d", d.Controller, d.Unit)
	default:
		return fmt.Sprintf("ide-hd,bus=ide.%d,unit=%d", d.Controller, d.Unit)
	}
}
