package vsphere

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
	"osx-builder/vm/vmx"
)

// imageDisk is a disk of an image.
type imageDisk struct {
	path     string // of the VMDK file
	format   string // its createType
	capacity int64  // bytes
}

// readImage reads the hardware and the disks of the image whose .vmx file is gold.
func readImage(gold string) (vmx.Hardware, []imageDisk, error) {
	text, err := os.ReadFile(gold)
	if err != nil {
		return vmx.Hardware{}, nil, fmt.Errorf("reading the image: %w", err)
	}
	f, err := vmx.Parse(text)
	if err != nil {
		return vmx.Hardware{}, nil, invalidImage(err)
	}
	h, err := f.Hardware()
	if err != nil {
		return h, nil, invalidImage(err)
	}
	root, err := os.OpenRoot(filepath.Dir(gold))
	if err != nil {
		return h, nil, fmt.Errorf("reading the image: %w", err)
	}
	defer root.Close()
	var disks []imageDisk
	for _, d := range h.Disks {
		v, err := vmx.ReadVMDK(root, d.File)
		if errors.Is(err, fs.ErrNotExist) {
			return h, nil, fmt.Errorf("reading the image: %w", err)
		}
		if err != nil {
			return h, nil, invalidImage(err)
		}
		disks = append(disks, imageDisk{path: filepath.Join(root.Name(), d.File), format: v.CreateType, capacity: v.Capacity})
	}
	return h, disks, nil
}

// invalidImage returns the client's error for an image that cannot be read.
func invalidImage(err error) error {
	code := vm.CodeImageInvalid
	if check, ok := errors.AsType[*vmx.CheckError](err); ok && check.Unsafe() {
		code = vm.CodeImageUnsafe
	}
	return &vm.Error{Code: code, Message: err.Error(), Err: err}
}

// guestIDs are vSphere's identifiers of guests by those of .vmx files, without what the two write differently.
var guestIDs = func() map[string]types.VirtualMachineGuestOsIdentifier {
	all := make(map[string]types.VirtualMachineGuestOsIdentifier)
	for _, id := range types.VirtualMachineGuestOsIdentifier("").Values() {
		all[plainGuest(string(id))] = id
	}
	return all
}()

// plainGuest returns an identifier of a guest in lower case, without punctuation and the word guest.
func plainGuest(id string) string {
	letters := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(id))
	return strings.TrimSuffix(letters, "guest")
}

// guestID translates a .vmx file's guestOS.
func guestID(guestOS string) string {
	if id, ok := guestIDs[plainGuest(guestOS)]; ok {
		return string(id)
	}
	if strings.HasSuffix(strings.ToLower(guestOS), "-64") {
		return string(types.VirtualMachineGuestOsIdentifierOtherGuest64)
	}
	return string(types.VirtualMachineGuestOsIdentifierOtherGuest)
}

// The keys of devices that every machine has.
const (
	firstIDEController = 200
	firstNewKey        = -100 // keys of devices that are to be made are negative
)

// configSpec returns the configuration of an image's template. Its devices are those of the .vmx file that do not reach
// its maker's host; the disks are empty and in the order of h.Disks.
func configSpec(s *site, name string, h vmx.Hardware, disks []imageDisk, network types.BaseVirtualDeviceBackingInfo) types.VirtualMachineConfigSpec {
	b := deviceList{keys: make(map[string]int32), next: firstNewKey, datastore: s.datastoreName}
	for _, c := range h.Controllers {
		b.addController(c)
	}
	for i, d := range h.Disks {
		b.addDisk(d, disks[i].capacity)
	}
	for _, n := range h.NICs {
		b.addNIC(n, network)
	}
	spec := types.VirtualMachineConfigSpec{
		Name: name, GuestId: guestID(h.GuestOS), Firmware: h.Firmware,
		NumCPUs: int32(h.CPUs), MemoryMB: int64(max(h.Memory, vm.MinMemory)), // #nosec G115 -- the parser bounds them
		Files:        &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", s.datastoreName)},
		DeviceChange: b.changes,
	}
	if h.SecureBoot {
		spec.BootOptions = &types.VirtualMachineBootOptions{EfiSecureBootEnabled: types.NewBool(true)}
	}
	return spec
}

// deviceList collects devices that are to be made.
type deviceList struct {
	changes   []types.BaseVirtualDeviceConfigSpec
	keys      map[string]int32 // of controllers, by bus and index
	next      int32
	datastore string
}

func (b *deviceList) add(device types.BaseVirtualDevice, file types.VirtualDeviceConfigSpecFileOperation) int32 {
	d := device.GetVirtualDevice()
	d.Key = b.next
	b.next--
	b.changes = append(b.changes, &types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: file, Device: device,
	})
	return d.Key
}

// addController makes a controller. The two IDE controllers exist in every machine.
func (b *deviceList) addController(c vmx.Controller) {
	name := fmt.Sprint(c.Bus, c.Index)
	controller := types.VirtualController{BusNumber: int32(c.Index)} // #nosec G115 -- at most 3
	scsi := types.VirtualSCSIController{VirtualController: controller, SharedBus: types.VirtualSCSISharingNoSharing}
	var device types.BaseVirtualDevice
	switch {
	case c.Bus == "ide":
		b.keys[name] = firstIDEController + int32(c.Index) // #nosec G115
		return
	case c.Bus == "sata":
		device = &types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{VirtualController: controller}}
	case c.Bus == "nvme":
		device = &types.VirtualNVMEController{VirtualController: controller}
	case c.Adapter == "pvscsi":
		device = &types.ParaVirtualSCSIController{VirtualSCSIController: scsi}
	case c.Adapter == "lsisas1068":
		device = &types.VirtualLsiLogicSASController{VirtualSCSIController: scsi}
	case c.Adapter == "buslogic":
		device = &types.VirtualBusLogicController{VirtualSCSIController: scsi}
	default:
		device = &types.VirtualLsiLogicController{VirtualSCSIController: scsi}
	}
	b.keys[name] = b.add(device, "")
}

// addDisk makes an empty disk. Its mode is always persistent: a disk of another mode has no snapshot to clone.
func (b *deviceList) addDisk(d vmx.Disk, capacity int64) {
	unit := int32(d.Unit) // #nosec G115 -- the parser bounds it
	b.add(&types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			ControllerKey: b.keys[fmt.Sprint(d.Bus, d.Controller)], UnitNumber: &unit,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				DiskMode: string(types.VirtualDiskModePersistent), ThinProvisioned: types.NewBool(true),
			},
		},
		CapacityInKB: (capacity + 1023) / 1024, CapacityInBytes: capacity,
	}, types.VirtualDeviceConfigSpecFileOperationCreate)
}

// addNIC makes a NIC with a generated address. vSphere calls vlance pcnet32; a model that it does not know becomes
// e1000, which every guest with drivers for VMware's NICs has.
func (b *deviceList) addNIC(n vmx.NIC, network types.BaseVirtualDeviceBackingInfo) {
	model := n.Model
	if model == "vlance" {
		model = "pcnet32"
	}
	device, err := object.VirtualDeviceList{}.CreateEthernetCard(model, network)
	if err != nil {
		device = &types.VirtualE1000{VirtualEthernetCard: types.VirtualEthernetCard{VirtualDevice: types.VirtualDevice{Backing: network}}}
	}
	card := device.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
	card.AddressType = string(types.VirtualEthernetCardMacTypeGenerated)
	card.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true, Connected: true}
	b.add(device, "")
}
