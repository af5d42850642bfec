package qemu

import (
	"context"

	"osx-builder/vm"
)

// PrepareImage implements [vm.ImagePreparer]: it converts the disks that are slow to read.
func (d *Driver) PrepareImage(ctx context.Context, gold string) error {
	clone, err := readImage(vm.Machine{}, gold, d.networks.backends)
	if err != nil {
		return err
	}
	return d.prepared.Prepare(ctx, gold, clone.Disks)
}

// FirstDisk implements [vm.DiskGrower].
func (d *Driver) FirstDisk(gold string) (bytes int64, err error) {
	clone, err := readImage(vm.Machine{}, gold, d.networks.backends)
	if err != nil {
		return 0, err
	}
	return clone.Disks[0].Size, nil
}
