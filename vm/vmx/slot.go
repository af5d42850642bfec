package vmx

import (
	"regexp"
	"strconv"
	"strings"
)

var (
	slotKey       = regexp.MustCompile(`^(scsi|sata|ide|nvme)([0-9]{1,3}):([0-9]{1,3})\.([a-z0-9_.]+)$`)
	controllerKey = regexp.MustCompile(`^(scsi|sata|ide|nvme)([0-9]{1,3})\.present$`)
	nicKey        = regexp.MustCompile(`^ethernet([0-9]{1,3})\.present$`)
)

// buses says how many controllers of a kind VMware knows, and how many units
// each takes. SCSI has 64 units with pvscsi in new machines, else 16; NVMe 64
// in new ones, else 15.
var buses = map[string]struct{ rank, controllers, units int }{
	"ide":  {0, 2, 2},
	"scsi": {1, 4, 65}, // unit 7 is the controller itself
	"sata": {2, 4, 30},
	"nvme": {3, 4, 64},
}

// slot is a place for a disk or a drive that has one plugged in.
type slot struct {
	bus              string
	controller, unit int
	prefix           string // "scsi0:0", as its keys have it
}

// slots returns the slots that are present, in the order of their keys.
func (f *File) slots() ([]slot, error) {
	var slots []slot
	for _, key := range f.Keys() {
		m := slotKey.FindStringSubmatch(key)
		if m == nil || m[4] != "present" || !f.Bool(key) {
			continue
		}
		controller, _ := strconv.Atoi(m[2])
		unit, _ := strconv.Atoi(m[3])
		s := slot{bus: m[1], controller: controller, unit: unit, prefix: strings.TrimSuffix(key, ".present")}
		bus := buses[s.bus]
		plain := s.bus + strconv.Itoa(controller) + ":" + strconv.Itoa(unit)
		if controller >= bus.controllers || unit >= bus.units || plain != s.prefix {
			value, _ := f.Get(key)
			return nil, &CheckError{Key: key, Value: value, Reason: "no virtual machine has this slot; remove the device, or put it where one is"}
		}
		slots = append(slots, s)
	}
	return slots, nil
}

// deviceType is what VMware takes the slot's device for, in lower case; a hard
// disk if the file does not say.
func (f *File) deviceType(s slot) string {
	value, _ := f.Get(s.prefix + ".devicetype")
	if value = lower(strings.Trim(value, " \t")); value == "" {
		return "disk"
	}
	return value
}

// isDisk reports whether a device type is that of a hard disk: disk,
// scsi-hardDisk, ata-hardDisk, plainDisk, but also rawDisk, which Check
// refuses.
func isDisk(deviceType string) bool { return strings.Contains(deviceType, "disk") }
