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
	// clockTimeout bounds how long an agent is asked to set the clock, and clockTry
	// how long one answer takes.
	clockTimeout = 2 * time.Minute
	clockTry     = 10 * time.Second

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
	s.mu.Lock()
	s.clocks[m.Dir]++
	s.mu.Unlock()
	s.tasks.Go(func() {
		defer close(set)
		defer s.clockIsSet(m.Dir)
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
	select {
	case <-ctx.Done():
	case <-time.After(clockPause):
	}
	for ctx.Err() == nil && process.Holds(m.Dir, pid) {
		try, cancel := context.WithTimeout(ctx, clockTry)
		err = qmp.SetTime(try, filepath.Join(m.Dir, agentSocket))
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(qmp.AgentTimeout):
		}
	}
	return err
}

func (s *memoryStarts) clockIsSet(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clocks[dir]--; s.clocks[dir] == 0 {
		delete(s.clocks, dir)
	}
}

// setsClock reports whether the agent of the machine in dir is to set the clock, and
// answers nobody else meanwhile.
func (s *memoryStarts) setsClock(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clocks[dir] > 0
}
