//go:build vix && cgo && !windows

package vix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"osx-builder/vm"
)

// Destroy implements [vm.Driver].
func (d *Driver) Destroy(ctx context.Context, m vm.Machine) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not destroying: %w", err)
	}
	ref, err := d.vms.acquire(ctx, vmxPath(m), d.deadlines.Stop)
	if err != nil {
		return err
	}
	defer ref.release()
	if err := d.stop(ctx, ref, m); err != nil {
		return err
	}
	if err := d.delete(ctx, ref, m); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("removing the machine's folder: %w", err)
	}
	if err := d.bases.removeMarker(m.ID); err != nil {
		return fmt.Errorf("removing the machine's marker from its base: %w", err)
	}
	d.bases.sweep(ctx)
	return nil
}

// stop powers the machine off and waits until no process uses it.
func (d *Driver) stop(ctx context.Context, ref *vmRef, m vm.Machine) error {
	_, err := os.Stat(vmxPath(m))
	if errors.Is(err, fs.ErrNotExist) && ref.vm == nil {
		return nil
	}
	err = ref.powerOff(ctx)
	if isCode(err, codeLocked) && d.locks.removeStale(m.Dir) {
		err = ref.powerOff(ctx)
	}
	if isCode(err, codeUnreadable, codeNeedPassword, codeBadPassword) && isUnlocked(m.Dir) {
		d.log.Warn("VMware cannot open the machine, and no process uses it; removing its files", "vm", m.ID, "err", err)
		return nil
	}
	if err != nil && !isNotFound(err) {
		return err
	}
	return d.locks.await(ctx, m, d.deadlines.Unlock)
}

// delete makes VMware delete the machine, which is off and unused, with its files. What VMware cannot delete is removed
// with the folder.
func (d *Driver) delete(ctx context.Context, ref *vmRef, m vm.Machine) error {
	if _, err := os.Stat(vmxPath(m)); errors.Is(err, fs.ErrNotExist) && ref.vm == nil {
		return nil
	}
	err := ref.call(ctx, "delete the machine", d.deadlines.Stop, func() error {
		if err := deleteVM(ref.handle); err != nil {
			return err
		}
		ref.close()
		return nil
	})
	switch {
	case err == nil:
		return nil
	case isCode(err, codeLocked, codeRunning) || codeOf(err) == 0:
		return err
	}
	held, lockErr := heldLocks(m.Dir)
	if lockErr != nil {
		return lockErr
	}
	if len(held) > 0 {
		return stillLocked(held[0])
	}
	if isNotFound(err) {
		return nil
	}
	d.log.Warn("VMware did not delete the machine, which is off; removing its files", "vm", m.ID, "err", err)
	return nil
}

// isUnlocked reports whether no process uses the machine in dir.
func isUnlocked(dir string) bool {
	held, err := heldLocks(dir)
	return err == nil && len(held) == 0
}

// isNotFound reports whether VMware answered that the machine does not exist.
func isNotFound(err error) bool {
	return isCode(err, codeFileNotFound, codeVMNotFound)
}
