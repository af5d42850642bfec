package vsphere

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
	"osx-builder/vm/cloudinit"
	"osx-builder/vm/vmx"
)

// Clone implements [vm.Driver]. It imports the image first if that was not done yet.
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not cloning: %w", context.Cause(ctx))
	}
	if err := d.Network(m.Network); err != nil {
		return err
	}
	if _, err := os.Stat(gold); err != nil {
		return fmt.Errorf("reading the image: %w", err)
	}
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	return d.explain("cloning on vSphere", d.clone(ctx, s, m, gold))
}

// clone makes the machine, or completes one that an interrupted call left.
func (d *Driver) clone(ctx context.Context, s *site, m vm.Machine, gold string) error {
	c, err := d.unfinished(ctx, s, m)
	if err != nil {
		return err
	}
	if c != nil && c.whole() {
		return d.noteIfMissing(m)
	}
	if c == nil {
		t, err := d.imports.ensure(ctx, s, m, gold)
		if err != nil {
			return err
		}
		at, err := d.cloneTemplate(ctx, s, m, t)
		if err != nil {
			return err
		}
		if c, err = s.read(ctx, at, cloneProperties); err != nil {
			return err
		}
		if c == nil {
			return fmt.Errorf("the machine was removed while it was made")
		}
	}
	if !c.ours(d.owner, m.ID) {
		return notOurs(c, m)
	}
	hardware, _, err := readImage(gold)
	if err != nil {
		return err
	}
	if err := d.complete(ctx, s, m, c, hardware); err != nil {
		return err
	}
	d.machines.set(m.ID, c.at)
	return d.writeNote(m, note{})
}

// notOurs is the client's error for a machine of the id that another daemon or a person made.
func notOurs(c *found, m vm.Machine) error {
	return &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("the machine %q on vSphere has the id %s, but it is not of this data folder; it is left alone", c.Name, m.ID)}
}

func (d *Driver) noteIfMissing(m vm.Machine) error {
	if OwnsMachine(m.Dir) {
		return nil
	}
	return d.writeNote(m, note{})
}

var cloneProperties = []string{"config.hardware.device", "recentTask", "runtime.powerState"}

// unfinished returns what interrupted calls made of the machine, or nil. It waits for their tasks.
func (d *Driver) unfinished(ctx context.Context, s *site, m vm.Machine) (*found, error) {
	n, err := readNote(m)
	if err != nil {
		return nil, err
	}
	if err := d.settleClone(ctx, s, n); err != nil {
		return nil, err
	}
	c, err := d.findMachine(ctx, s, m.ID, cloneProperties...)
	if err != nil || c == nil || c.whole() {
		return c, err
	}
	if err := settle(ctx, s.client, c.RecentTask); err != nil {
		return nil, err
	}
	return d.findMachine(ctx, s, m.ID, cloneProperties...)
}

// settleClone waits until the clone of an interrupted call is made or given up. If the daemon died before it could note
// the task, that is one of the tasks of the template.
func (d *Driver) settleClone(ctx context.Context, s *site, n note) error {
	switch {
	case n.Task != nil:
		return settle(ctx, s.client, []ref{*n.Task})
	case n.Template == nil:
		return nil
	}
	t, err := s.read(ctx, *n.Template, []string{"recentTask"})
	if err != nil || t == nil {
		return err
	}
	return settle(ctx, s.client, t.RecentTask)
}

// cloneTemplate makes the machine without its final configuration, and returns it. If another call has made it, it
// returns that.
func (d *Driver) cloneTemplate(ctx context.Context, s *site, m vm.Machine, t *found) (ref, error) {
	if err := d.writeNote(m, note{Template: &t.at}); err != nil {
		return ref{}, err
	}
	begin := d.beginClone
	if !s.isVC {
		begin = d.beginChild
	}
	task, err := begin(ctx, s, m, t)
	if err != nil {
		return ref{}, err
	}
	if err := d.writeNote(m, note{Template: &t.at, Task: &task}); err != nil {
		return ref{}, err
	}
	result, err := wait(ctx, s.client, task)
	if err == nil {
		if at, ok := result.(ref); ok {
			return at, nil
		}
		return ref{}, fmt.Errorf("the clone task has no machine as its result")
	}
	if !isFault[*types.DuplicateName](err) && !isFault[*types.FileAlreadyExists](err) {
		return ref{}, err
	}
	c, findErr := s.findByName(ctx, machineName(m.ID))
	if findErr != nil || c == nil {
		return ref{}, err
	}
	return c.at, nil
}

// identity is the configuration that a machine has from the beginning, so that Destroy and Sweep find it.
func (d *Driver) identity(m vm.Machine, t *found) types.VirtualMachineConfigSpec {
	mark := marks{
		markID: m.ID, markOwner: d.owner, markWhole: "0", markGuestOS: t.marks[markGuestOS], markTemplate: t.Name,
		markImage: t.marks[markImage], markHeartbeat: "",
	}
	return types.VirtualMachineConfigSpec{
		InstanceUuid: m.ID, Uuid: m.ID, NumCPUs: int32(m.CPUs), MemoryMB: int64(m.Memory), ExtraConfig: mark.options(), // #nosec G115 -- the request bounds them
	}
}

// beginClone begins to make a linked clone on a vCenter. DRS chooses the host when the machine is powered on.
func (d *Driver) beginClone(ctx context.Context, s *site, m vm.Machine, t *found) (ref, error) {
	if t.Snapshot == nil || t.Snapshot.CurrentSnapshot == nil {
		return ref{}, &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("the template %q has lost its snapshot, which machines are linked to; remove the template, and the next creation imports the image again", t.Name)}
	}
	config := d.identity(m, t)
	res, err := methods.CloneVM_Task(ctx, s.client, &types.CloneVM_Task{
		This: t.at, Folder: s.folder, Name: machineName(m.ID),
		Spec: types.VirtualMachineCloneSpec{
			Location: types.VirtualMachineRelocateSpec{
				Pool: &s.pool, Datastore: &s.datastore,
				DiskMoveType: string(types.VirtualMachineRelocateDiskMoveOptionsCreateNewChildDiskBacking),
			},
			Snapshot: t.Snapshot.CurrentSnapshot, Config: &config,
		},
	})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

// complete gives a clone its final configuration: its own addresses, its networks and the mark.
func (d *Driver) complete(ctx context.Context, s *site, m vm.Machine, c *found, h vmx.Hardware) error {
	if c.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		return fmt.Errorf("the machine runs before it is complete")
	}
	networks, warnings := differences(s, m, h)
	mark := marks{markWhole: "1", markNICs: strings.Join(networks, ","), markWarnings: encodeWarnings(warnings)}
	spec := types.VirtualMachineConfigSpec{
		Annotation: m.Annotation, NumCPUs: int32(m.CPUs), MemoryMB: int64(m.Memory), // #nosec G115 -- the request bounds them
		InstanceUuid: m.ID, ExtraConfig: mark.options(),
	}
	for _, set := range cloudinit.GuestInfo(m) {
		spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: set.Key, Value: set.Value})
	}
	nics := 0
	for _, device := range c.Config.Hardware.Device {
		nic, ok := device.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		network := m.Network
		if nics < len(networks) {
			network = vm.NetworkType(networks[nics])
		}
		nics++
		card := nic.GetVirtualEthernetCard()
		card.Backing = s.networks[network]
		card.MacAddress, card.AddressType = "", string(types.VirtualEthernetCardMacTypeGenerated)
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: device,
		})
	}
	return s.reconfigure(ctx, c.at, spec)
}
