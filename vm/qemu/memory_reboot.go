package qemu

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

// followRestart waits in the background for a restart of a guest that runs from
// memory, and then starts the machine as an ordinary one. While no daemon runs,
// nobody waits: a machine whose guest restarts then is off.
func (s *memoryStarts) followRestart(m vm.Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follow[m.Dir] != nil || s.ctx.Err() != nil {
		return
	}
	done := make(chan struct{})
	s.follow[m.Dir] = done
	s.tasks.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.follow, m.Dir)
			s.mu.Unlock()
			close(done)
		}()
		s.awaitRestart(s.ctx, m)
	})
}

// awaitRestart follows QEMU's events until it ends.
func (s *memoryStarts) awaitRestart(ctx context.Context, m vm.Machine) {
	pid, err := process.Holder(m.Dir)
	if err != nil || pid == 0 {
		return
	}
	restarts := false
	err = qmp.Follow(ctx, filepath.Join(m.Dir, eventsSocket), func(event string, data json.RawMessage) {
		var shutdown struct{ Reason string }
		if event == "SHUTDOWN" && json.Unmarshal(data, &shutdown) == nil && shutdown.Reason == "guest-reset" {
			restarts = true
		}
	})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.log.Debug("QEMU's events ended", "vm", m.ID, "err", err)
	}
	if !restarts {
		return
	}
	defer s.driver.starting.add(m.Dir)()
	ending, cancel := context.WithTimeout(ctx, process.KillTimeout)
	defer cancel()
	if err := process.Wait(ending, "QEMU's end", func() bool { return !process.Holds(m.Dir, pid) }); err != nil {
		s.log.Error("the machine's guest restarted, but its QEMU does not end", "vm", m.ID, "err", err)
		return
	}
	process.AwaitSupervisor(ctx, m.Dir)
	if _, err := os.Lstat(filepath.Join(m.Dir, switchedOffFile)); err == nil {
		return
	}
	s.log.Info("the guest restarted; the machine boots with its own identity from now on", "vm", m.ID)
	if err := s.driver.Start(ctx, m); err != nil && ctx.Err() == nil && OwnsMachine(m.Dir) {
		s.log.Error("the machine's guest restarted, but the machine does not start; POST /vms/ID/actions starts it", "vm", m.ID, "err", err)
	}
}

// followAll follows the machines that an earlier daemon started from memory.
func (s *memoryStarts) followAll(ctx context.Context) {
	entries, _ := os.ReadDir(s.driver.machinesDir) // without the folder there is no machine
	for _, e := range entries {
		dir := filepath.Join(s.driver.machinesDir, e.Name())
		clone, err := readConfig(dir)
		if err != nil || clone.Template == nil || !clone.Template.Loaded || ctx.Err() != nil {
			continue
		}
		m := clone.Template.Machine
		m.ID, m.Dir = e.Name(), dir
		s.followRestart(m)
	}
}

// sweepPeriodically removes templates whose image is gone, or that are too old.
func (s *memoryStarts) sweepPeriodically(ctx context.Context) {
	const every = time.Minute
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.store.Sweep(); err != nil {
			s.log.Warn("cannot remove templates", "err", err)
		}
	}
}
