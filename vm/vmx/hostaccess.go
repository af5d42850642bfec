package vmx

import (
	"fmt"
	"regexp"
	"strings"
)

// hostAccess is a device or setting with which a machine accesses the host that it runs on.
type hostAccess struct {
	description string   // one line for the log
	disable     []string // existing keys to set to FALSE
	remove      string   // or a key to remove
}

// hostDevices are the devices of the host that have a "present" key.
var hostDevices = []struct {
	key         *regexp.Regexp
	description string
}{
	{regexp.MustCompile(`^floppy[0-9]+\.present$`), "floppy drive"},
	{regexp.MustCompile(`^serial[0-9]+\.present$`), "serial port"},
	{regexp.MustCompile(`^parallel[0-9]+\.present$`), "parallel port"},
	{regexp.MustCompile(`^sound[0-9]*\.present$`), "sound card"},
	{regexp.MustCompile(`^sharedfolder[0-9]+\.present$`), "shared folder"},
	{regexp.MustCompile(`^pcipassthru[0-9]+\.present$`), "PCI device of the host"},
}

// hostSwitches are settings that, if they are true, give the machine access to the host or the host access to the
// machine.
var hostSwitches = map[string]string{
	"remotedisplay.vnc.enabled":       "VNC server on a port of the host",
	"debugstub.listen.guest32":        "port of a debugger on the host",
	"debugstub.listen.guest64":        "port of a debugger on the host",
	"debugstub.listen.guest32.remote": "port of a debugger on the host's network",
	"debugstub.listen.guest64.remote": "port of a debugger on the host's network",
	"printers.enabled":                "printers of the host",
	"usb.generic.autoconnect":         "USB devices that are connected to the host",
	"usb.vbluetooth.startconnected":   "Bluetooth of the host",
}

var (
	usbSlot = regexp.MustCompile(`^((?:usb|ehci|usb_xhci):[0-9]+)\.present$`)
	usbAuto = regexp.MustCompile(`^usb[a-z_]*\.autoconnect\.device[0-9]+$`)
	// deviceKey matches the settings of a device. A device opens its files only if it is present, and then it is a
	// hostAccess as a whole.
	deviceKey = regexp.MustCompile(`^(scsi|sata|ide|nvme|floppy|serial|parallel|sound|sharedfolder|pcipassthru|usb|ehci|usb_xhci)[0-9:]*\.`)
	// pathKey matches other settings with which VMware reads or writes a file of the host.
	pathKey = regexp.MustCompile(`(filename|directory|workingdir|\.dir|path|vmstate|configfile|hostlog)$`)
)

// hostAccesses returns everything in the file that accesses the host, except hard disks and NICs.
func (f *File) hostAccesses() []hostAccess {
	var all []hostAccess
	for _, key := range f.Keys() {
		if a, ok := f.hostAccess(key); ok {
			all = append(all, a)
		}
	}
	return all
}

func (f *File) hostAccess(key string) (hostAccess, bool) {
	value, _ := f.Get(key)
	if m := slotKey.FindStringSubmatch(key); m != nil {
		s := slot{prefix: strings.TrimSuffix(key, "."+m[4])}
		if m[4] != "present" || !f.Bool(key) || isDisk(f.deviceType(s)) {
			return hostAccess{}, false
		}
		return f.device(s.prefix, "drive of type "+printable(f.deviceType(s))), true
	}
	for _, d := range hostDevices {
		if d.key.MatchString(key) && f.Bool(key) {
			return f.device(strings.TrimSuffix(key, ".present"), d.description), true
		}
	}
	if m := usbSlot.FindStringSubmatch(key); m != nil && f.Bool(key) {
		switch kind := f.lowerValue(m[1] + ".deviceType"); kind {
		case "", "hid", "hub", "mouse", "keyboard", "tablet":
			return hostAccess{}, false
		default:
			return f.device(m[1], "USB device of type "+printable(kind)), true
		}
	}
	if description, ok := hostSwitches[key]; ok && f.Bool(key) {
		return hostAccess{description: key + ": " + description, disable: []string{key}}, true
	}
	if usbAuto.MatchString(key) {
		return hostAccess{description: fmt.Sprintf("%s: USB device of the host (%q)", key, shorten(value)), remove: key}, true
	}
	if pathKey.MatchString(key) && !deviceKey.MatchString(key) && !strings.HasPrefix(key, "guestinfo.") &&
		unsafeName(value) != "" {
		return hostAccess{description: fmt.Sprintf("%s: file or folder of the host (%q)", printable(key), shorten(value)), remove: key}, true
	}
	return hostAccess{}, false
}

// IsFirstSerialPort reports whether a line of [Hardware.HostAccess] is about serial0. A hypervisor that records what the
// guest writes there leaves nothing of it out but the file or the program of the maker's host.
func IsFirstSerialPort(line string) bool { return strings.HasPrefix(line, "serial0: ") }

// device returns the hostAccess for a device whose keys begin with prefix.
func (f *File) device(prefix, description string) hostAccess {
	a := hostAccess{description: prefix + ": " + description, disable: []string{prefix + ".present"}}
	if _, ok := f.Get(prefix + ".startconnected"); ok {
		a.disable = append(a.disable, prefix+".startconnected")
	}
	for _, name := range []string{".fileName", ".hostPath"} {
		if value, ok := f.Get(prefix + name); ok {
			a.description += fmt.Sprintf(" (%q)", shorten(value))
		}
	}
	return a
}

// DisableHostAccess disables everything with which the machine accesses the host that runs it, or the host the machine:
// CD and floppy drives, serial and parallel ports, sound, shared folders, USB and PCI devices of the host, Bluetooth,
// printers, VNC and debugger ports, and settings that name files or folders outside the machine's folder. Many images
// contain such devices of the host on which they were made. DisableHostAccess returns a line for each, and none if it
// is called again.
//
// It does not change hard disks, the nvram file and NICs. [Check] checks the first two.
func (f *File) DisableHostAccess() []string {
	var lines []string
	removed := map[string]bool{}
	for _, a := range f.hostAccesses() {
		for _, key := range a.disable {
			i := f.last[key]
			f.lines[i] = parseLine(f.lines[i].name() + ` = "FALSE"` + f.lines[i].terminator())
		}
		removed[a.remove] = true
		lines = append(lines, a.description)
	}
	f.DeleteFunc(func(key string) bool { return removed[key] })
	// By default VMware gives a machine a floppy drive.
	if _, ok := f.Get("floppy0.present"); !ok && len(f.lines) < maxLines && f.size()+40 < maxFile {
		f.add(`floppy0.present = "FALSE"`)
	}
	return lines
}
