//go:build vix && cgo && !windows

package vix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
)

// Destroy implements vm.Driver.
func (d *Driver) Destroy(ctx context.Context, m vm.Machine) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not destroying: %w", err)
	}
	h, err := d.take(ctx, vmxPath(m), d.Deadlines.Stop)
	if err != nil {
		return err
	}
	defer h.drop()
	if err := d.stop(ctx, h, m); err != nil {
		return err
	}
	if err := d.delete(ctx, h, m); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("removing the machine's folder: %w", err)
	}
	if err := d.leave(m.ID); err != nil {
		return fmt.Errorf("taking the machine's mark from its base: %w", err)
	}
	d.sweep(ctx)
	return nil
}

// stop powers the machine off and waits until no process uses it.
func (d *Driver) stop(ctx context.Context, h *hold, m vm.Machine) error {
	_, err := os.Stat(vmxPath(m))
	if errors.Is(err, fs.ErrNotExist) && h.vm == nil {
		return nil
	}
	err = d.powerOff(ctx, h)
	if isCode(err, codeLocked) && d.unlock(m.Dir) {
		err = d.powerOff(ctx, h)
	}
	if isCode(err, codeUnreadable, codeNeedPassword, codeBadPassword) && d.abandoned(m.Dir) {
		d.Log.Warn("VMware cannot open the machine, and no process uses it; removing its files", "vm", m.ID, "err", err)
		return nil
	}
	if err != nil && !isGone(err) {
		return err
	}
	return d.awaitUnlocked(ctx, m)
}

// powerOff pulls the machine's plug, unless it is off or suspended.
func (d *Driver) powerOff(ctx context.Context, h *hold) error {
	return h.do(ctx, "power the machine off", d.Deadlines.Stop, func() error {
		bits, err := h.vm.PowerState()
		if err != nil {
			return err
		}
		if p := power(bits); p == vm.PoweredOff || p == vm.Suspended {
			return nil
		}
		if err := h.vm.PowerOff(govix.VMPOWEROP_NORMAL); err != nil && !isCode(err, codeNotRunning) {
			return err
		}
		return nil
	})
}

// delete makes VMware forget the machine, which is off and in nobody's use,
// and its files. What VMware cannot delete is removed with the folder.
func (d *Driver) delete(ctx context.Context, h *hold, m vm.Machine) error {
	if _, err := os.Stat(vmxPath(m)); errors.Is(err, fs.ErrNotExist) && h.vm == nil {
		return nil
	}
	err := h.do(ctx, "delete the machine", d.Deadlines.Stop, func() error {
		if err := remove(h.handle); err != nil {
			return err
		}
		h.close()
		return nil
	})
	switch {
	case err == nil:
		return nil
	case isCode(err, codeLocked, codeRunning) || codeOf(err) == 0:
		return err
	}
	locks, lockErr := locksIn(m.Dir)
	if lockErr != nil {
		return lockErr
	}
	if used := inUse(locks); len(used) > 0 {
		return stillLocked(used[0])
	}
	if isGone(err) {
		return nil
	}
	d.Log.Warn("VMware did not delete the machine, which is off; removing its files", "vm", m.ID, "err", err)
	return nil
}

// abandoned reports whether no process uses the machine in dir.
func (d *Driver) abandoned(dir string) bool {
	locks, err := locksIn(dir)
	return err == nil && len(inUse(locks)) == 0
}

// isGone reports whether VMware answered that there is no such machine.
func isGone(err error) bool {
	return isCode(err, codeFileNotFound, codeVMNotFound)
}
