package vmware

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"osx-builder/vm"
)

// CloneFunc makes VMware clone the machine of a base.
type CloneFunc func(ctx context.Context, base Base, acquired Acquired) error

// Clone makes a linked clone of the image whose .vmx is gold, unless the machine is complete. clone makes VMware clone
// the machine of base, which is acquired, from the snapshot [SnapshotName], and takes that snapshot first if it is
// absent. The caller has acquired the machine m.
//
// Before each attempt Clone removes leftovers, because of which VMware would answer that the snapshot exists. Only one
// clone of a base is made at a time.
func (s *Bases) Clone(ctx context.Context, m vm.Machine, gold string, clone CloneFunc) error {
	if complete, err := IsComplete(m); complete || err != nil {
		return err
	}
	b, err := s.of(gold)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.Dir), 0o700); err != nil {
		return err
	}
	acquired, err := s.Acquire(ctx, b.VMX())
	if err != nil {
		return err
	}
	defer acquired.Release()
	if err := s.ensure(ctx, b, false); err != nil {
		return err
	}
	if err := vm.WriteFile(b.marker(m.ID), nil); err != nil {
		return err
	}
	attempt := func() error {
		if err := removeUnfinished(m); err != nil {
			return err
		}
		return clone(ctx, b, acquired)
	}
	if err := s.retry(ctx, m, b, attempt); err != nil {
		return err
	}
	return finish(m, gold)
}

// retry calls attempt again if an obstacle can be removed: a stale lock, or a base that VMware cannot write to.
func (s *Bases) retry(ctx context.Context, m vm.Machine, b Base, attempt func() error) error {
	err := attempt()
	switch state, stateErr := b.state(); {
	case IsCode(err, CodeHostNotConnected, CodeConnectionLost, CodeNotResponding, CodeInvalidHandle):
		return attempt() // the driver connects again
	case IsCode(err, CodeLocked) && s.Locks.RemoveStale(filepath.Dir(b.VMX())):
		return attempt()
	case IsCode(err, CodeFileReadOnly, CodeFileAccess, CodeHostPermission) && stateErr == nil && state.Shared && b.hasOnlyClone(m.ID):
		s.Log.Info("VMware writes to the image's disks; copying them", "image", b.gold, "err", err)
		if err := s.ensure(ctx, b, true); err != nil {
			return err
		}
		return attempt()
	}
	return err
}

// CheckImage returns an error if the image whose .vmx is gold cannot be read.
func CheckImage(gold string) error {
	if _, err := os.Stat(gold); err != nil {
		return unreadableImage(err)
	}
	return nil
}

// unreadableImage is the error for an image that cannot be read.
func unreadableImage(err error) error {
	return &vm.Error{Code: vm.CodeImageInvalid, Message: fmt.Sprintf("the image cannot be read: %v", err), Err: err}
}
