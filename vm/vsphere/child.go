package vsphere

import (
	"context"
	"fmt"
	"path"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// beginChild begins to make a machine on a stand-alone ESXi, which does not clone: a new machine gets the template's
// devices and disks that are linked to the template's.
func (c *cloning) beginChild(ctx context.Context, t *found) (ref, error) {
	return c.create(ctx, t, func(_ context.Context, disk *types.VirtualDisk) (types.VirtualDeviceConfigSpecFileOperation, types.BaseVirtualDevice, error) {
		child := object.VirtualDeviceList(t.Config.Hardware.Device).ChildDisk(disk)
		return types.VirtualDeviceConfigSpecFileOperationCreate, child, nil
	})
}

// beginCopy is beginChild with copies of the template's disks.
func (c *cloning) beginCopy(ctx context.Context, t *found) (ref, error) {
	return c.create(ctx, t, func(ctx context.Context, disk *types.VirtualDisk) (types.VirtualDeviceConfigSpecFileOperation, types.BaseVirtualDevice, error) {
		name, err := c.copyDisk(ctx, t, disk)
		made := *disk
		made.Backing = &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: name},
			DiskMode:                     string(types.VirtualDiskModePersistent),
		}
		return "", &made, err
	})
}

// makeDisk returns a new machine's disk for one of its template, and what is to be done with its file.
type makeDisk func(context.Context, *types.VirtualDisk) (types.VirtualDeviceConfigSpecFileOperation, types.BaseVirtualDevice, error)

// create begins to make a machine with the template's devices.
func (c *cloning) create(ctx context.Context, t *found, disk makeDisk) (ref, error) {
	spec := c.identity(t)
	spec.Name, spec.GuestId, spec.Firmware, spec.BootOptions = machineName(c.m.ID), t.Config.GuestId, t.Config.Firmware, t.Config.BootOptions
	spec.Files = &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", c.site.datastoreName)}
	var err error
	if spec.DeviceChange, err = newDevices(ctx, t.Config.Hardware.Device, disk); err != nil {
		return ref{}, err
	}
	res, err := methods.CreateVM_Task(ctx, c.site.client, &types.CreateVM_Task{This: c.site.folder, Config: spec, Pool: c.site.pool})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

// refusesChildren reports whether a host does not make a machine with linked disks.
func refusesChildren(err error) bool {
	return isFault[*types.InvalidDeviceBacking](err) || isFault[*types.InvalidDeviceSpec](err) ||
		isFault[*types.DeviceUnsupportedForVmPlatform](err) || isFault[*types.NotSupported](err)
}

// newDevices returns a template's controllers, NICs and disks as devices of a new machine.
func newDevices(ctx context.Context, all []types.BaseVirtualDevice, disk makeDisk) (changes []types.BaseVirtualDeviceConfigSpec, err error) {
	for _, device := range all {
		change := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: device}
		switch v := device.(type) {
		case *types.VirtualDisk:
			if change.FileOperation, change.Device, err = disk(ctx, v); err != nil {
				return nil, err
			}
		case types.BaseVirtualEthernetCard:
			card := v.GetVirtualEthernetCard()
			card.MacAddress, card.AddressType = "", string(types.VirtualEthernetCardMacTypeGenerated)
		case types.BaseVirtualSCSIController, types.BaseVirtualSATAController, *types.VirtualNVMEController:
			device.(types.BaseVirtualController).GetVirtualController().Device = nil
		default:
			continue // every machine has it
		}
		changes = append(changes, change)
	}
	return changes, nil
}

// copyDisk copies a disk of the template into the machine's folder of copied disks, and returns the copy's path in the
// datastore. It notes the task, which goes on if the daemon dies.
func (c *cloning) copyDisk(ctx context.Context, t *found, disk *types.VirtualDisk) (string, error) {
	s := c.site
	from := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName
	var source object.DatastorePath
	source.FromString(from)
	dir := s.copiedFolder(c.m.ID)
	_, err := methods.MakeDirectory(ctx, s.client, &types.MakeDirectory{
		This: *s.client.ServiceContent.FileManager, Name: dir, Datacenter: &s.datacenter, CreateParentDirectories: types.NewBool(true),
	})
	if err != nil && !isFault[*types.FileAlreadyExists](err) {
		return "", err
	}
	to := dir + "/" + path.Base(source.Path)
	res, err := methods.CopyVirtualDisk_Task(ctx, s.client, &types.CopyVirtualDisk_Task{
		This: *s.client.ServiceContent.VirtualDiskManager, SourceName: from, SourceDatacenter: &s.datacenter,
		DestName: to, DestDatacenter: &s.datacenter, Force: types.NewBool(true),
	})
	if err != nil {
		return "", err
	}
	if err := c.d.writeNote(c.m, note{Template: &t.at, Task: &res.Returnval}); err != nil {
		return "", err
	}
	_, err = wait(ctx, s.client, res.Returnval)
	return to, err
}

// copiedFolder is the folder on the datastore with a machine's copied disks.
func (s *site) copiedFolder(id string) string {
	return fmt.Sprintf("[%s] %s-disks", s.datastoreName, machineName(id))
}

// removeCopies removes a machine's copied disks. It is a no-op if there are none.
func (s *site) removeCopies(ctx context.Context, id string) error {
	if s.isVC {
		return nil
	}
	res, err := methods.DeleteDatastoreFile_Task(ctx, s.client, &types.DeleteDatastoreFile_Task{
		This: *s.client.ServiceContent.FileManager, Name: s.copiedFolder(id), Datacenter: &s.datacenter,
	})
	if err == nil {
		_, err = wait(ctx, s.client, res.Returnval)
	}
	if isFault[*types.FileNotFound](err) {
		return nil
	}
	return err
}
