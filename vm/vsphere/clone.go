package vsphere

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
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
	c := &cloning{d: d, site: s, m: m}
	return d.explain("cloning on vSphere", c.run(ctx, gold))
}

// cloning makes one machine.
type cloning struct {
	d    *Driver
	site *site
	m    vm.Machine
}

// run makes the machine, or completes one that an interrupted call left.
func (c *cloning) run(ctx context.Context, gold string) error {
	left, err := c.unfinished(ctx)
	if err != nil {
		return err
	}
	if left != nil && left.whole() {
		return c.noteIfMissing()
	}
	if left == nil {
		t, err := c.d.imports.ensure(ctx, c.site, c.m, gold)
		if err != nil {
			return err
		}
		at, err := c.fromTemplate(ctx, t)
		if err != nil {
			return err
		}
		if left, err = c.site.read(ctx, at, cloneProperties); err != nil {
			return err
		}
		if left == nil {
			return fmt.Errorf("the machine was removed while it was made")
		}
	}
	if !left.ours(c.d.owner, c.m.ID) {
		return notOurs(left, c.m)
	}
	hardware, _, err := readImage(gold)
	if err != nil {
		return err
	}
	if err := c.complete(ctx, left, hardware); err != nil {
		return err
	}
	c.d.machines.set(c.m.ID, left.at)
	return c.d.writeNote(c.m, note{})
}

// notOurs is the client's error for a machine of the id that another daemon or a person made.
func notOurs(c *found, m vm.Machine) error {
	return &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("the machine %q on vSphere has the id %s, but it is not of this data folder; it is left alone", c.Name, m.ID)}
}

func (c *cloning) noteIfMissing() error {
	if OwnsMachine(c.m.Dir) {
		return nil
	}
	return c.d.writeNote(c.m, note{})
}

var cloneProperties = []string{"config.hardware.device", "recentTask", "runtime.powerState"}

// unfinished returns what interrupted calls made of the machine, or nil. It waits for their tasks.
func (c *cloning) unfinished(ctx context.Context) (*found, error) {
	n, err := readNote(c.m)
	if err != nil {
		return nil, err
	}
	if err := c.site.settleClone(ctx, n); err != nil {
		return nil, err
	}
	left, err := c.d.findMachine(ctx, c.site, c.m.ID, cloneProperties...)
	if err != nil || left == nil || left.whole() {
		return left, err
	}
	if err := settle(ctx, c.site.client, left.RecentTask); err != nil {
		return nil, err
	}
	return c.d.findMachine(ctx, c.site, c.m.ID, cloneProperties...)
}

// settleClone waits until the clone of an interrupted call is made or given up. If the daemon died before it could note
// the task, that is one of the tasks of the template, or of the folder on a stand-alone ESXi.
func (s *site) settleClone(ctx context.Context, n note) error {
	switch {
	case n.Task != nil:
		return settle(ctx, s.client, []ref{*n.Task})
	case n.Template == nil:
		return nil
	}
	var of mo.ManagedEntity
	at := *n.Template
	if !s.isVC {
		at = s.folder
	}
	err := properties(ctx, s.client, at, &of, "recentTask")
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return settle(ctx, s.client, of.RecentTask)
}

// fromTemplate makes the machine without its final configuration, and returns it. If another call has made it, it
// returns that.
func (c *cloning) fromTemplate(ctx context.Context, t *found) (at ref, err error) {
	if c.site.isVC {
		at, err = c.begin(ctx, t, c.beginClone)
	} else {
		at, err = c.begin(ctx, t, c.beginChild)
		if refusesChildren(err) {
			c.d.opts.Log.Warn("the host refuses linked disks; copying them", "vm", c.m.ID, "err", err)
			at, err = c.begin(ctx, t, c.beginCopy)
		}
	}
	if !isFault[*types.DuplicateName](err) && !isFault[*types.FileAlreadyExists](err) {
		return at, err
	}
	return c.madeBefore(ctx, err)
}

// madeBefore returns the machine that an interrupted call made. It may still be under way, so it is waited for. If there
// is none in the end, the error is err.
func (c *cloning) madeBefore(ctx context.Context, err error) (ref, error) {
	for tries, delay := 0, 50*time.Millisecond; tries < changeTries; tries, delay = tries+1, min(2*delay, time.Second) {
		made, findErr := c.site.findByName(ctx, machineName(c.m.ID))
		if findErr != nil {
			return ref{}, findErr
		}
		if made != nil && made.marks[markID] != "" {
			return made.at, nil
		}
		if !sleep(ctx, delay) {
			return ref{}, context.Cause(ctx)
		}
	}
	return ref{}, err
}

// begin notes that the machine is made, begins a task that makes it, notes the task, and waits for the machine.
func (c *cloning) begin(ctx context.Context, t *found, begin func(context.Context, *found) (ref, error)) (ref, error) {
	if err := c.d.writeNote(c.m, note{Template: &t.at}); err != nil {
		return ref{}, err
	}
	task, err := begin(ctx, t)
	if err != nil {
		return ref{}, err
	}
	if err := c.d.writeNote(c.m, note{Template: &t.at, Task: &task}); err != nil {
		return ref{}, err
	}
	result, err := wait(ctx, c.site.client, task)
	if err != nil {
		return ref{}, err
	}
	at, ok := result.(ref)
	if !ok {
		return ref{}, fmt.Errorf("the task that clones has no machine as its result")
	}
	return at, nil
}

// identity is the configuration that a machine has from the beginning, so that Destroy and Sweep find it.
func (c *cloning) identity(t *found) types.VirtualMachineConfigSpec {
	mark := marks{
		markID: c.m.ID, markOwner: c.d.owner, markWhole: "0", markGuestOS: t.marks[markGuestOS], markTemplate: t.Name,
		markImage: t.marks[markImage], markHeartbeat: "",
	}
	return types.VirtualMachineConfigSpec{
		InstanceUuid: c.m.ID, Uuid: c.m.ID, NumCPUs: int32(c.m.CPUs), MemoryMB: int64(c.m.Memory), ExtraConfig: mark.options(), // #nosec G115 -- the request bounds them
	}
}

// beginClone begins to make a linked clone on a vCenter. DRS chooses the host when the machine is powered on.
func (c *cloning) beginClone(ctx context.Context, t *found) (ref, error) {
	if t.Snapshot == nil || t.Snapshot.CurrentSnapshot == nil {
		return ref{}, &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("the template %q has lost its snapshot, which machines are linked to; remove the template, and the next creation imports the image again", t.Name)}
	}
	config := c.identity(t)
	res, err := methods.CloneVM_Task(ctx, c.site.client, &types.CloneVM_Task{
		This: t.at, Folder: c.site.folder, Name: machineName(c.m.ID),
		Spec: types.VirtualMachineCloneSpec{
			Location: types.VirtualMachineRelocateSpec{
				Pool: &c.site.pool, Datastore: &c.site.datastore,
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
func (c *cloning) complete(ctx context.Context, made *found, h vmx.Hardware) error {
	s, m := c.site, c.m
	if made.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
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
	for _, device := range made.Config.Hardware.Device {
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
	return s.reconfigure(ctx, made.at, spec)
}
