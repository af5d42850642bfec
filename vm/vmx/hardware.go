package vmx

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// maxDisks is the largest number of hard disks that VMware supports.
const maxDisks = 60

// Hardware is the machine that a .vmx file describes. It contains only devices that are present. File names and other
// text are not checked. A machine without a NIC gets one, as many tools add it only when they start the machine.
type Hardware struct {
	GuestOS     string // VMware's identifier, such as "debian11-64"
	DisplayName string
	Version     int    // of VMware's virtual hardware; 0 if unknown
	Firmware    string // "bios" or "efi"
	SecureBoot  bool
	TPM         bool // a virtual TPM
	CPUs        int  // virtual processors; 1 by default
	Memory      int  // MiB; 0 if unknown
	Controllers []Controller
	Disks       []Disk // hard disks, in the order in which the firmware tries them
	NICs        []NIC
	NVRAM       string // file of the firmware's settings, or ""

	// HostAccess has a line for each device or setting with which the machine accesses the host, like the result of
	// [File.DisableHostAccess].
	HostAccess []string

	// Remarks are lines about what was left out when the .vmx was made from an OVF package.
	Remarks []string
}

// RemarkKey begins the keys of Hardware.Remarks; a number follows. VMware ignores them.
const RemarkKey = "osxbuilder.remark"

// Controller is a disk controller that is present or has a disk.
type Controller struct {
	Bus     string // "scsi", "sata", "ide" or "nvme"
	Index   int
	Adapter string // the model of a SCSI controller, as in Disk
}

// Disk is a virtual hard disk.
type Disk struct {
	Bus        string // "scsi", "sata", "ide" or "nvme"
	Controller int
	Unit       int

	// Adapter is the model of the SCSI controller in lower case, such as "pvscsi", "lsisas1068", "lsilogic" or
	// "buslogic". VMware's default is lsilogic for 64-bit guests and buslogic for others. It is empty on other buses.
	Adapter string

	File string // relative to the .vmx file's folder, unescaped
	Key  string // the key that names File, such as "scsi0:0.fileName"
	Mode string // such as "independent-persistent", in lower case, or ""
}

// NIC is a virtual network card.
type NIC struct {
	Index int // N of ethernetN

	// Model is in lower case, such as "e1000", "e1000e", "vmxnet3" or "vlance". VMware's default is e1000 for 64-bit
	// guests and vlance for others.
	Model string

	MAC        string // six lower-case hex pairs with colons, or ""
	Connection string // "bridged" (VMware's default), "nat", "hostonly" or "custom", in lower case

	Added bool // the file has no NIC

	// Slot is the number of the PCI slot as the guest sees it: Linux puts it into the NIC's name, as in ens33. It is the
	// one in the file, otherwise the one that VMware would choose.
	Slot int
}

// Network returns the type of network that every host has for the NIC: "bridged", "nat" or "hostonly". replaced reports
// whether that is not the image's: a custom network is one of its maker's host, and becomes hostonly.
func (n NIC) Network() (network string, replaced bool) {
	switch n.Connection {
	case "bridged", "nat", "hostonly":
		return n.Connection, false
	}
	return "hostonly", true
}

// Hardware returns the machine that the file describes. It has at least one NIC. An error is a [*CheckError] with a key that no machine can
// have.
func (f *File) Hardware() (Hardware, error) {
	h := Hardware{
		GuestOS:     f.text("guestOS"),
		DisplayName: f.text("displayName"),
		Firmware:    "bios",
		Version:     f.number("virtualHW.version"),
		SecureBoot:  f.Bool("uefi.secureBoot.enabled"),
		TPM:         f.Bool("vtpm.present"),
		CPUs:        max(1, f.number("numvcpus")),
		Memory:      f.number("memsize"),
	}
	if f.lowerValue("firmware") == "efi" {
		h.Firmware = "efi"
	}
	h.NVRAM, _ = f.Get("nvram")
	slots, err := f.slots()
	if err != nil {
		return Hardware{}, err
	}
	is64Bit := strings.HasSuffix(lower(h.GuestOS), "-64")
	h.Disks = f.disks(slots, is64Bit)
	if len(h.Disks) > maxDisks {
		d := h.Disks[maxDisks]
		return Hardware{}, &CheckError{Key: d.Key, Value: d.File, Reason: fmt.Sprintf("the machine has more than %d hard disks", maxDisks)}
	}
	h.Controllers = f.controllers(h.Disks, is64Bit)
	h.NICs = f.nics(is64Bit)
	if len(h.NICs) == 0 {
		h.NICs = []NIC{h.addedNIC()}
	}
	f.assignSlots(&h)
	for _, a := range f.hostAccesses() {
		h.HostAccess = append(h.HostAccess, a.description)
	}
	for _, key := range f.Keys() {
		if strings.HasPrefix(key, RemarkKey) {
			h.Remarks = append(h.Remarks, f.text(key))
		}
	}
	return h, nil
}

func (f *File) text(key string) string {
	value, _ := f.Get(key)
	return strings.ToValidUTF8(value, "\uFFFD")
}

// lowerValue returns the value of key in lower case and without spaces around it.
func (f *File) lowerValue(key string) string {
	value, _ := f.Get(key)
	return lower(strings.Trim(value, " \t"))
}

// number returns the value of key if it is a number, and 0 otherwise.
func (f *File) number(key string) int {
	n, err := strconv.ParseUint(f.lowerValue(key), 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// disks returns the hard disks in boot order: first those in bios.hddOrder, then IDE, SCSI, SATA and NVMe disks by
// slot.
func (f *File) disks(slots []slot, is64Bit bool) []Disk {
	var disks []Disk
	for _, s := range slots {
		if !isDisk(f.deviceType(s)) {
			continue
		}
		d := Disk{Bus: s.bus, Controller: s.controller, Unit: s.unit, Key: s.prefix + ".fileName", Mode: f.lowerValue(s.prefix + ".mode")}
		d.File, _ = f.Get(d.Key)
		d.Adapter = f.adapter(s.bus, s.controller, is64Bit)
		disks = append(disks, d)
	}
	order := strings.FieldsFunc(f.lowerValue("bios.hddOrder"), func(r rune) bool { return r == ',' || r == ' ' })
	rank := func(d Disk) int {
		if i := slices.Index(order, strings.TrimSuffix(d.Key, ".fileName")); i >= 0 {
			return i
		}
		return len(order) + buses[d.Bus].rank
	}
	slices.SortFunc(disks, func(a, b Disk) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Controller, b.Controller), cmp.Compare(a.Unit, b.Unit))
	})
	return disks
}

func (f *File) adapter(bus string, controller int, is64Bit bool) string {
	if bus != "scsi" {
		return ""
	}
	if adapter := f.lowerValue(fmt.Sprintf("scsi%d.virtualDev", controller)); adapter != "" {
		return adapter
	}
	if is64Bit {
		return "lsilogic"
	}
	return "buslogic"
}

func (f *File) controllers(disks []Disk, is64Bit bool) []Controller {
	var all []Controller
	add := func(bus string, index int) {
		c := Controller{Bus: bus, Index: index, Adapter: f.adapter(bus, index, is64Bit)}
		if index < buses[bus].controllers && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	for _, d := range disks {
		add(d.Bus, d.Controller)
	}
	for _, key := range f.Keys() {
		if m := controllerKey.FindStringSubmatch(key); m != nil && f.Bool(key) {
			index, _ := strconv.Atoi(m[2])
			add(m[1], index)
		}
	}
	return all
}

// nics returns the NICs in the order of their numbers. VMware supports ethernet0 to ethernet9.
func (f *File) nics(is64Bit bool) []NIC {
	var nics []NIC
	for _, key := range f.Keys() {
		m := nicKey.FindStringSubmatch(key)
		if m == nil || len(m[1]) != 1 || !f.Bool(key) {
			continue
		}
		index, _ := strconv.Atoi(m[1])
		prefix := "ethernet" + m[1]
		n := NIC{Index: index, Model: f.lowerValue(prefix + ".virtualDev"), Connection: f.lowerValue(prefix + ".connectionType")}
		if n.Connection == "" {
			n.Connection = "bridged"
		}
		if n.Model == "" && is64Bit {
			n.Model = "e1000"
		} else if n.Model == "" {
			n.Model = "vlance"
		}
		from := ".generatedAddress"
		if f.lowerValue(prefix+".addressType") == "static" {
			from = ".address"
		}
		if mac, err := net.ParseMAC(f.lowerValue(prefix + from)); err == nil && len(mac) == 6 {
			n.MAC = mac.String()
		}
		nics = append(nics, n)
	}
	slices.SortFunc(nics, func(a, b NIC) int { return cmp.Compare(a.Index, b.Index) })
	return nics
}
