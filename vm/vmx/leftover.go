package vmx

import (
	"fmt"
	"regexp"
	"strings"
)

// leftover is a device or setting by which a machine reaches out to the host
// it runs on.
type leftover struct {
	what string   // one line for the log
	off  []string // keys to set to FALSE, all of them set already
	del  string   // or the key to remove
}

// hostDevices are the devices that have a "present" key and lead to the host.
var hostDevices = []struct {
	key  *regexp.Regexp
	what string
}{
	{regexp.MustCompile(`^floppy[0-9]+\.present$`), "floppy drive"},
	{regexp.MustCompile(`^serial[0-9]+\.present$`), "serial port"},
	{regexp.MustCompile(`^parallel[0-9]+\.present$`), "parallel port"},
	{regexp.MustCompile(`^sound[0-9]*\.present$`), "sound card"},
	{regexp.MustCompile(`^sharedfolder[0-9]+\.present$`), "shared folder"},
	{regexp.MustCompile(`^pcipassthru[0-9]+\.present$`), "PCI device of the host"},
}

// hostSwitches are the settings that open the machine to the host, or the host
// to the machine, when they are on.
var hostSwitches = map[string]string{
	"remotedisplay.vnc.enabled":       "VNC server on a port of the host",
	"debugstub.listen.guest32":        "debugger's port on the host",
	"debugstub.listen.guest64":        "debugger's port on the host",
	"debugstub.listen.guest32.remote": "debugger's port on the host's network",
	"debugstub.listen.guest64.remote": "debugger's port on the host's network",
	"printers.enabled":                "printers of the host",
	"usb.generic.autoconnect":         "USB devices of the host, as they are plugged in",
	"usb.vbluetooth.startconnected":   "Bluetooth of the host",
}

var (
	usbSlot = regexp.MustCompile(`^((?:usb|ehci|usb_xhci):[0-9]+)\.present$`)
	usbAuto = regexp.MustCompile(`^usb[a-z_]*\.autoconnect\.device[0-9]+$`)
	// deviceKey matches the settings of a device. It opens its files only
	// where it is present, and then it is a leftover as a whole.
	deviceKey = regexp.MustCompile(`^(scsi|sata|ide|nvme|floppy|serial|parallel|sound|sharedfolder|pcipassthru|usb|ehci|usb_xhci)[0-9:]*\.`)
	// pathKey matches settings outside of devices by which VMware opens or
	// writes a file of the host.
	pathKey = regexp.MustCompile(`(filename|directory|workingdir|\.dir|path|vmstate|configfile|hostlog)$`)
)

// leftovers returns what in the file leads to the host. Hard disks and network
// cards are not among them.
func (f *File) leftovers() []leftover {
	var all []leftover
	for _, key := range f.Keys() {
		if l, ok := f.leftover(key); ok {
			all = append(all, l)
		}
	}
	return all
}

func (f *File) leftover(key string) (leftover, bool) {
	value, _ := f.Get(key)
	if m := slotKey.FindStringSubmatch(key); m != nil {
		s := slot{prefix: strings.TrimSuffix(key, "."+m[4])}
		if m[4] != "present" || !f.Bool(key) || isDisk(f.deviceType(s)) {
			return leftover{}, false
		}
		return f.device(s.prefix, "drive of type "+printable(f.deviceType(s))), true
	}
	for _, d := range hostDevices {
		if d.key.MatchString(key) && f.Bool(key) {
			return f.device(strings.TrimSuffix(key, ".present"), d.what), true
		}
	}
	if m := usbSlot.FindStringSubmatch(key); m != nil && f.Bool(key) {
		switch kind := f.word(m[1] + ".deviceType"); kind {
		case "", "hid", "hub", "mouse", "keyboard", "tablet":
			return leftover{}, false
		default:
			return f.device(m[1], "USB device of type "+printable(kind)), true
		}
	}
	if what, ok := hostSwitches[key]; ok && f.Bool(key) {
		return leftover{what: key + ": " + what, off: []string{key}}, true
	}
	if usbAuto.MatchString(key) {
		return leftover{what: fmt.Sprintf("%s: USB device of the host (%q)", key, shorten(value)), del: key}, true
	}
	if pathKey.MatchString(key) && !deviceKey.MatchString(key) && !strings.HasPrefix(key, "guestinfo.") &&
		unsafeName(value) != "" {
		return leftover{what: fmt.Sprintf("%s: file or folder of the host (%q)", printable(key), shorten(value)), del: key}, true
	}
	return leftover{}, false
}

// device is the leftover of a device whose keys begin with prefix.
func (f *File) device(prefix, what string) leftover {
	l := leftover{what: prefix + ": " + what, off: []string{prefix + ".present"}}
	if _, ok := f.Get(prefix + ".startconnected"); ok {
		l.off = append(l.off, prefix+".startconnected")
	}
	for _, name := range []string{".fileName", ".hostPath"} {
		if value, ok := f.Get(prefix + name); ok {
			l.what += fmt.Sprintf(" (%q)", shorten(value))
		}
	}
	return l
}

// Disarm switches off what leads from the machine to the host that runs it, or
// back: CD and floppy drives, serial and parallel ports, sound, shared folders,
// host USB and PCI devices, Bluetooth, printers, VNC and debugger ports, and
// settings that name a file or folder outside of the machine's own. Honest
// images carry such leftovers of their maker's host. It returns a line for
// each, and nothing when it is called again.
//
// Hard disks, the nvram file and network cards are left alone; Check answers
// for the first two.
func (f *File) Disarm() []string {
	var lines []string
	gone := map[string]bool{}
	for _, l := range f.leftovers() {
		for _, key := range l.off {
			i := f.last[key]
			f.lines[i] = parseLine(f.lines[i].name() + ` = "FALSE"` + f.lines[i].terminator())
		}
		gone[l.del] = true
		lines = append(lines, l.what)
	}
	f.DeleteFunc(func(key string) bool { return gone[key] })
	// VMware gives a machine that does not say otherwise a floppy drive.
	if _, ok := f.Get("floppy0.present"); !ok && len(f.lines) < maxLines && f.size()+40 < maxFile {
		f.add(`floppy0.present = "FALSE"`)
	}
	return lines
}
