package qemu

import (
	"context"
	"path/filepath"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
)

const (
	// clockTimeout bounds how long an agent is asked to set the clock, and [agentTry]
	// how long one answer takes.
	clockTimeout = 2 * time.Minute

	// clockPatience bounds how long the clock waits for other starts.
	clockPatience = 5 * time.Second

	// clockPause is how long a guest that continues has for its first answers before
	// its agent is asked.
	clockPause = 40 * time.Millisecond
)

// setClock sets the guest's clock, which has stood still since the guest was
// saved. Only an agent can do that. It may be repeated. It returns once the clock is
// set, but does not wait for an agent that is slow, as a busy host makes them.
func (s *memoryStarts) setClock(ctx context.Context, m vm.Machine, at templateStart) {
	pid, err := process.Holder(m.Dir)
	if !at.Agent || err != nil || pid == 0 {
		return
	}
	set := make(chan struct{})
	done := s.clocks.add(m.Dir)
	s.tasks.Go(func() {
		defer close(set)
		defer done()
		ctx, cancel := context.WithTimeout(s.ctx, clockTimeout)
		defer cancel()
		if err := s.askForClock(ctx, m, pid); err != nil && s.ctx.Err() == nil && process.Holds(m.Dir, pid) {
			s.log.Warn("the guest's clock is not set; it is behind", "vm", m.ID, "by", time.Since(at.SavedAt).Round(time.Second), "err", err)
		}
	})
	select {
	case <-set:
	case <-ctx.Done():
	case <-time.After(qmp.AgentTimeout):
	}
}

// askForClock asks the agent until it has set the clock, or until the process pid ends.
// For that an agent starts a program, which takes more of the host than the start from
// memory did. So machines that are being started go first.
func (s *memoryStarts) askForClock(ctx context.Context, m vm.Machine, pid int) (err error) {
	waiting, cancel := context.WithTimeout(ctx, clockPatience)
	defer cancel()
	_ = process.Wait(waiting, "the end of other starts", func() bool { return s.loading.Load() == 0 })
	for pause := clockPause; process.Holds(m.Dir, pid); pause = qmp.AgentTimeout {
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		try, cancel := context.WithTimeout(ctx, agentTry)
		err = s.driver.agents.SetTime(try, filepath.Join(m.Dir, agentSocket))
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}
