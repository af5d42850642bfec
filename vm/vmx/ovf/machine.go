package ovf

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	envelope "github.com/vmware/govmomi/ovf"

	"osx-builder/vm/vmx"
)

// generator collects the settings of the .vmx.
type generator struct {
	*pack
	disks map[string]string // files by the ID of the disk
	file  *vmx.File
	err   error

	controllers map[string]controller // by InstanceID
	buses       map[string]int        // controllers of each bus so far
	used        map[string]bool       // slots, such as "scsi0:0"
	nics        int
	remarks     int
}

// controller is a controller of disks, such as "scsi" 0.
type controller struct {
	bus   string
	index int
	next  int // unit of the next disk without an address
}

func (g *generator) set(key, value string) {
	if g.err == nil {
		g.err = g.file.Set(key, strings.Map(printable, value))
	}
}

// printable removes control characters, which no setting needs.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}

// remark adds a line that the drivers show as a warning about the image.
func (g *generator) remark(format string, args ...any) {
	g.set(fmt.Sprintf("%s%d", vmx.RemarkKey, g.remarks), fmt.Sprintf(format, args...))
	g.remarks++
}

// machine returns the text of the .vmx.
func (p *pack) machine(disks map[string]string) (string, error) {
	g := &generator{
		pack: p, disks: disks, controllers: map[string]controller{}, buses: map[string]int{}, used: map[string]bool{},
	}
	if g.file, g.err = vmx.Parse(nil); g.err != nil {
		return "", g.err
	}
	g.general()
	for _, item := range p.hardware.Item {
		if c := text1(item.Configuration); c != "" && p.config != "" && !strings.Contains(" "+c+" ", " "+p.config+" ") {
			continue
		}
		if err := g.item(item); err != nil {
			return "", err
		}
	}
	for _, item := range p.hardware.StorageItem {
		if err := g.item(storageItem(item)); err != nil {
			return "", err
		}
	}
	g.settings()
	g.properties()
	if g.err != nil {
		return "", p.refuse("", "", "%v", g.err)
	}
	return string(g.file.Bytes()), nil
}

// storageItem returns an item of OVF 2 as one of OVF 1.
func storageItem(s envelope.StorageAllocationSettingData) envelope.ResourceAllocationSettingData {
	var r envelope.ResourceAllocationSettingData
	r.InstanceID, r.ResourceType, r.ResourceSubType = s.InstanceID, s.ResourceType, s.ResourceSubType
	r.AddressOnParent, r.Address, r.Parent, r.HostResource = s.AddressOnParent, s.Address, s.Parent, s.HostResource
	return r
}

// general sets what is not about one device.
func (g *generator) general() {
	version := "13"
	if s := g.hardware.System; s != nil {
		for kind := range strings.FieldsSeq(text1(s.VirtualSystemType)) {
			if n, err := strconv.Atoi(strings.TrimPrefix(kind, "vmx-")); err == nil && n >= 4 && n <= 40 {
				version = strconv.Itoa(n)
			}
		}
	}
	for _, s := range [][2]string{
		{".encoding", "UTF-8"},
		{"config.version", "8"},
		{"virtualHW.version", version},
		{"displayName", cmp.Or(text1(g.system.Name), g.system.ID, strings.TrimSuffix(path.Base(g.name), path.Ext(g.name)))},
		{"guestOS", g.guestOS()},
		{"pciBridge0.present", "TRUE"},
	} {
		g.set(s[0], s[1])
	}
	for n := 4; n <= 7; n++ { // on which PCI Express devices are
		bridge := fmt.Sprintf("pciBridge%d.", n)
		g.set(bridge+"present", "TRUE")
		g.set(bridge+"virtualDev", "pcieRootPort")
		g.set(bridge+"functions", "8")
	}
}

var bits64 = regexp.MustCompile(`_?64$`)

// osIDs are the guests of packages without VMware's osType, by their number in CIM_OperatingSystem.
var osIDs = map[int16]string{
	36: "otherlinux", 79: "rhel7-64", 80: "rhel7-64", 93: "ubuntu", 94: "ubuntu-64", 95: "debian10", 96: "debian10-64",
	99: "other26xlinux", 100: "other26xlinux-64", 101: "otherlinux-64", 105: "windows7-64", 106: "centos", 107: "centos7-64",
	42: "freebsd", 78: "freebsd-64", 103: "windows8srv-64", 116: "windows9-64",
}

// guestOS returns VMware's identifier of the guest. VMware's osType is "debian12_64Guest" for "debian12-64".
func (g *generator) guestOS() string {
	s := g.system.OperatingSystem
	if s == nil {
		return "other-64"
	}
	kind := strings.TrimSuffix(strings.ToLower(text1(s.OSType)), "guest")
	if kind == "" {
		return cmp.Or(osIDs[s.ID], "other-64")
	}
	return bits64.ReplaceAllString(kind, "-64")
}

// item adds the device of an item.
func (g *generator) item(item envelope.ResourceAllocationSettingData) error {
	if item.ResourceType == nil {
		return nil
	}
	switch kind := *item.ResourceType; kind {
	case envelope.Processor:
		g.processors(item)
	case envelope.Memory:
		return g.memory(item)
	case envelope.IdeController, envelope.ParallelScsiHba, envelope.OtherStorage:
		g.controller(item, kind)
	case envelope.DiskDrive:
		return g.disk(item)
	case envelope.EthernetAdapter:
		g.nic(item)
	case envelope.CdDrive, envelope.DvdDrive, envelope.FloppyDrive:
		if len(item.HostResource) > 0 {
			g.remark("drive %q with %q is left out", item.ElementName, item.HostResource[0])
		}
	}
	return nil
}

func (g *generator) processors(item envelope.ResourceAllocationSettingData) {
	if n := item.VirtualQuantity; n != nil && *n > 0 {
		g.set("numvcpus", strconv.FormatUint(uint64(*n), 10))
	}
	if c := item.CoresPerSocket; c != nil && c.Value > 0 {
		g.set("cpuid.coresPerSocket", strconv.Itoa(int(c.Value)))
	}
}

func (g *generator) memory(item envelope.ResourceAllocationSettingData) error {
	units, known := allocationUnits(cmp.Or(text1(item.AllocationUnits), "byte * 2^20"))
	const most = 1 << 50
	if item.VirtualQuantity == nil || !known || uint64(*item.VirtualQuantity) > most/units {
		return g.refuse("AllocationUnits", text1(item.AllocationUnits), "the machine's memory is not known or too large")
	}
	g.set("memsize", strconv.FormatUint(uint64(*item.VirtualQuantity)*units>>20, 10))
	return nil
}

// scsiModels are VMware's names in OVF for SCSI controllers.
var scsiModels = map[string]string{
	"virtualscsi": "pvscsi", "pvscsi": "pvscsi", "lsilogicsas": "lsisas1068", "lsilogic": "lsilogic", "buslogic": "buslogic",
}

func (g *generator) controller(item envelope.ResourceAllocationSettingData, kind envelope.CIMResourceType) {
	model := strings.ToLower(text1(item.ResourceSubType))
	bus := "scsi"
	switch {
	case kind == envelope.IdeController:
		bus = "ide"
	case strings.Contains(model, "nvme"):
		bus = "nvme"
	case strings.Contains(model, "ahci"), strings.Contains(model, "sata"):
		bus = "sata"
	case kind == envelope.OtherStorage:
		g.remark("controller %q of type %q is left out", item.ElementName, model)
		return
	}
	c := controller{bus: bus, index: g.buses[bus]}
	g.buses[bus]++
	g.controllers[item.InstanceID] = c
	prefix := bus + strconv.Itoa(c.index)
	if bus != "ide" {
		g.set(prefix+".present", "TRUE")
	}
	if bus == "scsi" {
		known, ok := scsiModels[model]
		if !ok {
			g.remark("controller %q of type %q is a lsilogic", item.ElementName, model)
		}
		g.set(prefix+".virtualDev", cmp.Or(known, "lsilogic"))
	}
	g.slot(prefix, item)
}

// slot sets the PCI slot of a device.
func (g *generator) slot(prefix string, item envelope.ResourceAllocationSettingData) {
	for _, c := range item.Config {
		if n, err := strconv.Atoi(c.Value); c.Key == "slotInfo.pciSlotNumber" && err == nil && n > 0 {
			g.set(prefix+".pciSlotNumber", c.Value)
		}
	}
}

// disk adds a hard disk, with the file that its resource names: "ovf:/disk/ID" or "ovf:/file/ID".
func (g *generator) disk(item envelope.ResourceAllocationSettingData) error {
	c, ok := g.controllers[text1(item.Parent)]
	if !ok {
		return g.refuse("Parent", text1(item.Parent), "disk %q is on a controller that the package does not have", item.ElementName)
	}
	if len(item.HostResource) == 0 {
		return g.refuse("HostResource", "", "disk %q has no file", item.ElementName)
	}
	resource := item.HostResource[0]
	name, ok := g.disks[path.Base(resource)]
	if strings.Contains(resource, "/file/") {
		var err error
		if name, err = g.pack.file(path.Base(resource), map[string]string{}); err != nil {
			return err
		}
	} else if !ok {
		return g.refuse("HostResource", resource, "the package has no such disk")
	}
	unit, err := strconv.Atoi(text1(item.AddressOnParent))
	if err != nil {
		unit = c.next
	}
	for c.bus == "scsi" && unit == 7 || g.used[fmt.Sprintf("%s%d:%d", c.bus, c.index, unit)] {
		unit++
	}
	c.next = unit + 1
	g.controllers[text1(item.Parent)] = c
	prefix := fmt.Sprintf("%s%d:%d", c.bus, c.index, unit)
	g.used[prefix] = true
	g.set(prefix+".present", "TRUE")
	g.set(prefix+".fileName", name)
	return nil
}

// nicModels are VMware's names in OVF for network adapters.
var nicModels = map[string]string{
	"vmxnet3": "vmxnet3", "e1000": "e1000", "e1000e": "e1000e", "pcnet32": "vlance", "flexible": "flexible", "vmxnet": "vmxnet", "vmxnet2": "vmxnet",
}

func (g *generator) nic(item envelope.ResourceAllocationSettingData) {
	prefix := "ethernet" + strconv.Itoa(g.nics)
	g.nics++
	model := ""
	for kind := range strings.FieldsSeq(strings.ToLower(text1(item.ResourceSubType))) { // several are alternatives
		model = cmp.Or(model, nicModels[kind])
	}
	if model == "" && text1(item.ResourceSubType) != "" {
		g.remark("network card %q of type %q is an e1000", item.ElementName, text1(item.ResourceSubType))
	}
	connection := "nat"
	for _, name := range item.Connection {
		switch lower := strings.ToLower(name); {
		case strings.Contains(lower, "host"):
			connection = "hostonly"
		case strings.Contains(lower, "bridge"):
			connection = "bridged"
		}
	}
	for _, s := range [][2]string{
		{"present", "TRUE"}, {"virtualDev", cmp.Or(model, "e1000")}, {"connectionType", connection}, {"addressType", "generated"},
	} {
		g.set(prefix+"."+s[0], s[1])
	}
	g.slot(prefix, item)
}
