//go:build vix && cgo

package vix

import (
	"context"
	"fmt"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// Clone implements [vm.Driver].
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not cloning: %w", err)
	}
	if err := vmware.CheckImage(gold); err != nil {
		return err
	}
	ref, err := d.vms.acquire(ctx, vmware.VMXPath(m), d.deadlines.Clone)
	if err != nil {
		return err
	}
	defer ref.Release()
	return d.bases.Clone(ctx, m, gold, func(ctx context.Context, b vmware.Base, acquired vmware.Acquired) error {
		return d.conn.call(ctx, "clone the image", d.deadlines.Clone, func(s *session) error {
			ref.close() // it is open if its folder was removed behind VMware's back
			return cloneVMX(s.host, b.VMX(), vmware.SnapshotName, vmware.VMXPath(m))
		}, ref, acquired.(*vmRef))
	})
}
