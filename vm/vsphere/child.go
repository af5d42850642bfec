package vsphere

import (
	"context"
	"fmt"
	"path"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// beginChild begins to make a machine on a stand-alone ESXi, which does not clone: a new machine gets the template's
// devices and disks that are linked to the template's. If the host refuses such disks, they are copied.
func (d *Driver) beginChild(ctx context.Context, s *site, m vm.Machine, t *found) (ref, error) {
	spec := d.identity(m, t)
	spec.Name, spec.GuestId, spec.Firmware, spec.BootOptions = machineName(m.ID), t.Config.GuestId, t.Config.Firmware, t.Config.BootOptions
	spec.Files = &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", s.datastoreName)}
	create := func(linked bool) (ref, error) {
		var err error
		if spec.DeviceChange, err = s.childDevices(ctx, m, t, linked); err != nil {
			return ref{}, err
		}
		res, err := methods.CreateVM_Task(ctx, s.client, &types.CreateVM_Task{This: s.folder, Config: spec, Pool: s.pool})
		if err != nil {
			return ref{}, err
		}
		return res.Returnval, nil
	}
	task, err := create(true)
	if err == nil {
		if _, err = wait(ctx, s.client, task); !refusesChildren(err) {
			return task, nil // with its result or its error
		}
	}
	if !refusesChildren(err) {
		return ref{}, err
	}
	d.opts.Log.Warn("the host refuses linked disks; copying them", "vm", m.ID, "err", err)
	return create(false)
}

// refusesChildren reports whether a host does not make a machine with linked disks.
func refusesChildren(err error) bool {
	return isFault[*types.InvalidDeviceBacking](err) || isFault[*types.InvalidDeviceSpec](err) ||
		isFault[*types.DeviceUnsupportedForVmPlatform](err) || isFault[*types.NotSupported](err)
}

// childDevices returns the template's controllers, NICs and disks as devices of a new machine.
func (s *site) childDevices(ctx context.Context, m vm.Machine, t *found, linked bool) ([]types.BaseVirtualDeviceConfigSpec, error) {
	var changes []types.BaseVirtualDeviceConfigSpec
	all := object.VirtualDeviceList(t.Config.Hardware.Device)
	for _, device := range all {
		change := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: device}
		switch v := device.(type) {
		case *types.VirtualDisk:
			change.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
			change.Device = all.ChildDisk(v)
			if !linked {
				name, err := s.copyDisk(ctx, m, v)
				if err != nil {
					return nil, err
				}
				change.FileOperation = ""
				disk := *v
				disk.Backing = &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: name},
					DiskMode:                     string(types.VirtualDiskModePersistent),
				}
				change.Device = &disk
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

// copyDisk copies a disk of the template beside the machine, in the folder that the host will give it, and returns the
// copy's path in the datastore.
func (s *site) copyDisk(ctx context.Context, m vm.Machine, disk *types.VirtualDisk) (string, error) {
	from := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName
	var source object.DatastorePath
	source.FromString(from)
	dir := copiedFolder(s, m.ID)
	files := object.NewFileManager(s.client)
	dc := object.NewDatacenter(s.client, s.datacenter)
	if err := files.MakeDirectory(ctx, dir, dc, true); err != nil && !isFault[*types.FileAlreadyExists](err) {
		return "", err
	}
	to := dir + "/" + path.Base(source.Path)
	force := true
	res, err := methods.CopyVirtualDisk_Task(ctx, s.client, &types.CopyVirtualDisk_Task{
		This: *s.client.ServiceContent.VirtualDiskManager, SourceName: from, SourceDatacenter: &s.datacenter,
		DestName: to, DestDatacenter: &s.datacenter, Force: &force,
	})
	if err == nil {
		_, err = wait(ctx, s.client, res.Returnval)
	}
	return to, err
}

// copiedFolder is the folder on the datastore with a machine's copied disks.
func copiedFolder(s *site, id string) string {
	return fmt.Sprintf("[%s] %s-disks", s.datastoreName, machineName(id))
}
