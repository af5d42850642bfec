package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

var _ vm.Preloader = (*Driver)(nil)

// Preload starts the machine's QEMU, loads the state of the template's guest and
// leaves the guest stopped.
func (d *Driver) Preload(ctx context.Context, m vm.Machine) error {
	unlock, err := lockToStart(ctx, d, m)
	if err != nil {
		return err
	}
	defer unlock()
	clone, err := readConfig(m.Dir)
	if err != nil {
		return unreadable(m, machineFile, err)
	}
	switch {
	case clone.Template == nil:
		return notPreloaded(clone)
	case clone.Template.Loaded:
		return nil
	}
	if err := d.memory.preload(ctx, m, &clone); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &vm.Error{Code: vm.CodeHypervisor, Message: fmt.Sprintf("a machine was not prepared: %v", err), Err: err}
	}
	return nil
}

// notPreloaded is the error for a clone that boots, with the reason from its
// warnings.
func notPreloaded(clone cloneConfig) error {
	why := "the machine boots instead of starting from memory"
	for _, w := range clone.Warnings {
		if w.Code == vm.WarningBooted {
			why = w.Message
		}
	}
	return &vm.Error{Code: vm.CodeHypervisor, Message: strings.TrimSpace(why)}
}

// preload prepares the clone, unless that is done already and from the template that
// there is now.
func (s *memoryStarts) preload(ctx context.Context, m vm.Machine, clone *cloneConfig) error {
	at := clone.Template
	if at.Preloaded {
		t, memory, err := s.store.Get(at.Key)
		if err != nil {
			return err
		}
		key, _, err := s.key(ctx, m, *clone, at.Image)
		if err = errors.Join(err, memory.Close()); err != nil {
			return err
		}
		if key == at.Key && t.CreatedAt.Equal(at.SavedAt) && s.isPreloaded(ctx, m) {
			return nil
		}
		at.Preloaded = false // before the guest is loaded again, because Start relies on it
		if err := writeConfig(m.Dir, *clone); err != nil {
			return disk.FullError(err)
		}
	}
	t, err := s.loadTemplate(ctx, m, clone)
	if err != nil {
		return err
	}
	at.Preloaded, at.SavedAt = true, t.CreatedAt
	return disk.FullError(writeConfig(m.Dir, *clone))
}

// isPreloaded reports whether the machine's QEMU waits with its guest loaded.
func (s *memoryStarts) isPreloaded(ctx context.Context, m vm.Machine) bool {
	pid, err := process.Holder(m.Dir)
	if err != nil || pid == 0 {
		return false
	}
	var status struct{ Status string }
	err = s.driver.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return q.Ask("query-status", &status) })
	return err == nil && status.Status == "paused"
}

// continuePreloaded is resume for the guest of a machine that Preload has prepared.
// continued is false too if there is none, or if its QEMU has ended or has not answered.
func (s *memoryStarts) continuePreloaded(ctx context.Context, m vm.Machine, clone *cloneConfig) (continued bool, err error) {
	if !clone.Template.Preloaded || !s.isPreloaded(ctx, m) {
		return false, nil
	}
	continued, err = s.resume(ctx, m, clone)
	if !continued {
		s.log.Warn("a prepared machine does not continue; starting it again", "vm", m.ID, "err", err)
	}
	return continued, err
}
