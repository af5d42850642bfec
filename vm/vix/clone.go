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

// vmxPath returns the path of a machine's .vmx.
func vmxPath(m vm.Machine) string { return filepath.Join(m.Dir, m.ID+".vmx") }

func completeFile(m vm.Machine) string { return filepath.Join(m.Dir, completeName) }

// completeClone is the content of the file that Clone writes last.
type completeClone struct {
	ID       string      `json:"id"`
	Gold     string      `json:"gold"`
	Warnings vm.Warnings `json:"warnings,omitempty"`
}

func readComplete(m vm.Machine) (c completeClone, err error) {
	data, err := os.ReadFile(completeFile(m))
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, fmt.Errorf("reading %s: %w", completeFile(m), err)
	}
	return c, nil
}

// isComplete reports whether a machine exists and is complete. Without its .vmx it is not: VMware deletes that first.
func isComplete(m vm.Machine) (bool, error) {
	for _, path := range []string{completeFile(m), vmxPath(m)} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return true, nil
}

// Clone implements [vm.Driver].
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not cloning: %w", err)
	}
	if _, err := os.Stat(gold); err != nil {
		return unreadableImage(err)
	}
	ref, err := d.vms.acquire(ctx, vmxPath(m), d.deadlines.Clone)
	if err != nil {
		return err
	}
	defer ref.release()
	if complete, err := isComplete(m); complete || err != nil {
		return err
	}
	b, err := d.bases.of(gold)
	if err != nil {
		return err
	}
	if err := d.clone(ctx, ref, m, b); err != nil {
		return err
	}
	if err := customize(vmxPath(m), m); err != nil {
		return err
	}
	// VMware sets a mode of its own.
	if err := os.Chmod(m.Dir, 0o700); err != nil {
		return err
	}
	warnings, err := readWarnings(gold)
	if err != nil {
		return err
	}
	data, err := json.Marshal(completeClone{ID: m.ID, Gold: gold, Warnings: warnings})
	if err != nil {
		return err
	}
	return vm.WriteFile(completeFile(m), data)
}

// clone makes the clone. Before each attempt it removes leftovers, because of which VIX would answer that the snapshot
// exists. Only one clone of a base is made at a time.
func (d *Driver) clone(ctx context.Context, ref *vmRef, m vm.Machine, b base) error {
	if err := os.MkdirAll(filepath.Dir(m.Dir), 0o700); err != nil {
		return err
	}
	baseRef, err := d.vms.acquire(ctx, b.vmx(), d.deadlines.Clone)
	if err != nil {
		return err
	}
	defer baseRef.release()
	if err := d.bases.ensure(ctx, b, false); err != nil {
		return err
	}
	if err := vm.WriteFile(b.marker(m.ID), nil); err != nil {
		return err
	}
	attempt := func() error {
		if err := removeUnfinished(m); err != nil {
			return err
		}
		return d.conn.call(ctx, "clone the image", d.deadlines.Clone, func() error {
			ref.close() // it is open if its folder was removed behind VMware's back
			return cloneVMX(d.conn.host, b.vmx(), snapshotName, vmxPath(m))
		}, ref, baseRef)
	}
	err = attempt()
	switch s, stateErr := b.state(); {
	case isCode(err, codeLocked) && d.locks.removeStale(filepath.Dir(b.vmx())):
		return attempt()
	case isCode(err, codeFileReadOnly, codeFileAccess, codeHostPermission) && stateErr == nil && s.Shared && b.hasOnlyClone(m.ID):
		d.log.Info("VMware writes to the image's disks; copying them", "image", b.gold, "err", err)
		if err := d.bases.ensure(ctx, b, true); err != nil {
			return err
		}
		return attempt()
	}
	return err
}

func removeUnfinished(m vm.Machine) error {
	if err := os.RemoveAll(m.Dir); err != nil {
		return fmt.Errorf("removing an unfinished clone: %w", err)
	}
	return nil
}
