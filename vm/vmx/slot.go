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

// buses are the types of controllers, with their rank in the boot order, their largest number, and the largest number
// of units of each. SCSI has 64 units with pvscsi in new machines, otherwise 16. NVMe has 64 in new machines, otherwise
// 15.
var buses = map[string]struct{ rank, controllers, units int }{
	"ide":  {0, 2, 2},
	"scsi": {1, 4, 65}, // unit 7 is the controller itself
	"sata": {2, 4, 30},
	"nvme": {3, 4, 64},
}

// slot is a connection of a controller that has a disk or drive.
type slot struct {
	bus              string
	controller, unit int
	prefix           string // of its keys, such as "scsi0:0"
}

// slots returns the present slots in the order of their keys.
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
		canonical := s.bus + strconv.Itoa(controller) + ":" + strconv.Itoa(unit)
		if controller >= bus.controllers || unit >= bus.units || canonical != s.prefix {
			value, _ := f.Get(key)
			return nil, &CheckError{Key: key, Value: value, Reason: "virtual machines do not have this slot; remove the device or use another slot"}
		}
		slots = append(slots, s)
	}
	return slots, nil
}

// deviceType returns the type of the slot's device in lower case. The default is a hard disk, as in VMware.
func (f *File) deviceType(s slot) string {
	value, _ := f.Get(s.prefix + ".devicetype")
	if value = lower(strings.Trim(value, " \t")); value == "" {
		return "disk"
	}
	return value
}

// isDisk reports whether a device type is that of a hard disk: disk, scsi-hardDisk, ata-hardDisk, plainDisk, or
// rawDisk, which [Check] refuses.
func isDisk(deviceType string) bool { return strings.Contains(deviceType, "disk") }
