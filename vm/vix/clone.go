//go:build vix && cgo && !windows

package vix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"osx-builder/vm"
)

// vmxPath is where a machine's .vmx is.
func vmxPath(m vm.Machine) string { return filepath.Join(m.Dir, m.ID+".vmx") }

func completeFile(m vm.Machine) string { return filepath.Join(m.Dir, completeName) }

// isMade reports whether a machine is there and whole. One whose .vmx is gone
// is not: VMware deletes that first.
func isMade(m vm.Machine) (bool, error) {
	for _, path := range []string{completeFile(m), vmxPath(m)} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return true, nil
}

// Clone implements vm.Driver.
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not cloning: %w", err)
	}
	if _, err := os.Stat(gold); err != nil {
		return missingImage(err)
	}
	h, err := d.take(ctx, vmxPath(m), d.Deadlines.Clone)
	if err != nil {
		return err
	}
	defer h.drop()
	if made, err := isMade(m); made || err != nil {
		return err
	}
	b, err := d.base(gold)
	if err != nil {
		return err
	}
	if err := d.clone(ctx, h, m, b); err != nil {
		return err
	}
	if err := customize(vmxPath(m), m); err != nil {
		return err
	}
	// VMware chooses the folder's mode by itself.
	if err := os.Chmod(m.Dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(map[string]string{"id": m.ID, "gold": gold})
	if err != nil {
		return err
	}
	return vm.WriteFile(completeFile(m), data)
}

// clone makes the clone, where nothing may be yet: leftovers make VIX answer
// that a snapshot exists. One clone is made at a time of each base.
func (d *Driver) clone(ctx context.Context, h *hold, m vm.Machine, b base) error {
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("removing a half-made clone: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(m.Dir), 0o700); err != nil {
		return err
	}
	hb, err := d.take(ctx, b.vmx(), d.Deadlines.Clone)
	if err != nil {
		return err
	}
	defer hb.drop()
	if err := d.ensureBase(ctx, b, false); err != nil {
		return err
	}
	if err := vm.WriteFile(b.mark(m.ID), nil); err != nil {
		return err
	}
	attempt := func() error {
		return d.call(ctx, "clone the image", d.Deadlines.Clone, func() error {
			h.close() // of a clone whose folder was removed by hand
			return cloneFrom(d.host, b.vmx(), snapshotName, vmxPath(m))
		}, h, hb)
	}
	err = attempt()
	switch s, stateErr := b.state(); {
	case isCode(err, codeLocked) && d.unlock(filepath.Dir(b.vmx())):
		err = d.again(m, attempt)
	case isCode(err, codeFileReadOnly, codeFileAccess, codeHostPermission) && stateErr == nil && s.Shared && b.alone(m.ID):
		d.Log.Info("VMware wants to write to the image's disks; copying them", "image", b.gold, "err", err)
		if err = d.ensureBase(ctx, b, true); err == nil {
			err = d.again(m, attempt)
		}
	}
	return err
}

// again makes a clone once more where it failed.
func (d *Driver) again(m vm.Machine, attempt func() error) error {
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("removing a half-made clone: %w", err)
	}
	return attempt()
}

// alone reports whether no other machine than that of the ID is a clone of b.
func (b base) alone(id string) bool {
	clones, err := os.ReadDir(filepath.Dir(b.mark(id)))
	return err == nil && len(clones) == 1 && clones[0].Name() == id
}
