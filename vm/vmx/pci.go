package vmx

import (
	"slices"
	"strconv"
	"strings"
)

// VMware's numbers of PCI slots. Conventional devices get those from 32 up. PCI Express devices get the first function
// of four root ports, then their second, and so on.
const (
	firstConventional = 32
	maxSlotNumber     = 8191 // the largest number of a slot in PCI Express
	functionBit       = 1024 // the function of the root port is a multiple of it
	rootPortFunctions = 8
)

var rootPorts = [...]int{160, 192, 224, 256}

// pciExpressModels are the models of NICs and SCSI controllers that VMware attaches to PCI Express.
var pciExpressModels = []string{"vmxnet3", "e1000e", "pvscsi", "lsisas1068"}

// pciSlots are the numbers of the slots that devices of a machine have.
type pciSlots struct {
	express bool // the machine has PCI Express
	taken   map[int]bool
}

// assignSlots gives each NIC its slot: the one in the file, or otherwise the one that VMware chooses when it first
// starts the machine.
func (f *File) assignSlots(h *Hardware) {
	slots := pciSlots{express: h.HasPCIExpress(), taken: map[int]bool{}}
	for _, key := range f.Keys() {
		if n, ok := f.slotNumber(key); ok && strings.HasSuffix(key, ".pcislotnumber") {
			slots.taken[n] = true
		}
	}
	// VMware starts with the USB controller and with disk controllers.
	if _, has := f.slotNumber("usb.pcislotnumber"); f.Bool("usb.present") && !has {
		slots.take("usb")
	}
	for _, c := range h.Controllers {
		_, has := f.slotNumber(c.Bus + strconv.Itoa(c.Index) + ".pcislotnumber")
		if c.Bus == "scsi" && isPCIExpress(c.Adapter) && !has {
			slots.take(c.Adapter)
		}
	}
	seen := map[int]bool{0: true}
	for i := range h.NICs {
		number, _ := f.slotNumber("ethernet" + strconv.Itoa(h.NICs[i].Index) + ".pcislotnumber")
		for seen[visibleSlot(number)] {
			number = slots.take(h.NICs[i].Model)
		}
		h.NICs[i].Slot = visibleSlot(number)
		seen[h.NICs[i].Slot] = true
	}
}

// slotNumber returns the PCI slot at key. VMware writes -1 for a slot that it has not assigned.
func (f *File) slotNumber(key string) (number int, ok bool) {
	n := f.number(key)
	if n > maxSlotNumber {
		return 0, false
	}
	return n, n > 0
}

func isPCIExpress(model string) bool { return slices.Contains(pciExpressModels, model) }

// take returns the first of VMware's slot numbers for a device of this model that no device has, and takes it.
func (s *pciSlots) take(model string) int {
	if s.express && isPCIExpress(model) {
		for function := range rootPortFunctions {
			for _, port := range rootPorts {
				if n := port + function*functionBit; !s.taken[n] {
					s.taken[n] = true
					return n
				}
			}
		}
	}
	n := firstConventional
	for s.taken[n] {
		n++
	}
	s.taken[n] = true
	return n
}

// visibleSlot returns the number of a slot as guests see it, and as Linux puts it into names such as ens33 and ens161.
func visibleSlot(number int) int { return number%functionBit + number/functionBit }
