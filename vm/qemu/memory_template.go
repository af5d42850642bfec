package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"osx-builder/vm"
	"osx-builder/vm/qemu/disk"
	"osx-builder/vm/qemu/network"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
	"osx-builder/vm/qemu/template"
)

const (
	// templateTimeout bounds the boot of a template's guest, which has a low
	// priority.
	templateTimeout = 15 * time.Minute

	// addressLook is how often the guest's address is looked for.
	addressLook = 300 * time.Millisecond

	// A guest that has an address goes on starting its services. It has settled when
	// it needs less than settleShare of a processor for settleTime, and its agent is
	// there; without an agent, which may start late, after settleTries such times. It
	// is not waited for longer than settleMost.
	settleTime  = 3 * time.Second
	settleShare = 0.3
	settleTries = 3
	settleMost  = 5 * time.Minute

	// agentTries bounds how often an agent that has its port open is asked, and
	// agentTry how long each answer takes: a busy host gives a guest with a low
	// priority little of its time.
	agentTries = 6
	agentTry   = 10 * time.Second
)

// make makes the template of the key from a guest of the daemon's own. One is made
// at a time, because all have the inner identity while they boot.
func (s *memoryStarts) make(key string, like vm.Machine, clone cloneConfig, image string) {
	defer func() {
		s.mu.Lock()
		delete(s.making, key)
		s.mu.Unlock()
	}()
	select {
	case s.slot <- struct{}{}:
		defer func() { <-s.slot }()
	case <-s.ctx.Done():
		return
	}
	started := time.Now()
	err := s.makeSafely(key, like, clone, image)
	if s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failed, key)
	if err != nil {
		s.failed[key] = failedMaking{err, time.Now()}
		s.log.Error("no template for starting from memory; machines boot", "template", key, "image", image, "err", err)
		return
	}
	s.log.Info("template made; machines start from memory", "template", key, "image", image, "after", time.Since(started).Round(time.Millisecond))
}

// makeSafely turns a panic into an error: the daemon can do without a template.
func (s *memoryStarts) makeSafely(key string, like vm.Machine, clone cloneConfig, image string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while making a template", "panic", p, "stack", string(debug.Stack()))
			err = errors.New("an internal error, which the log describes")
		}
	}()
	return s.makeFrom(s.ctx, key, like, clone, image)
}

// makeFrom boots the template's guest, saves it and removes it. Its folder is
// among those of machines, so that the daemon's next start removes what a crash
// leaves of it.
func (s *memoryStarts) makeFrom(ctx context.Context, key string, like vm.Machine, clone cloneConfig, image string) (err error) {
	d := s.driver
	if free := freeMemory(); free < like.Memory {
		return fmt.Errorf("the host has %d MiB of memory left, and its guest needs %d", free, like.Memory)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, templateTimeout, fmt.Errorf("its guest was not ready after %v", templateTimeout))
	defer cancel()
	m := like
	m.ID, m.Name, m.Forward, m.Start = uuid.NewString(), "", nil, vm.StartBoot
	m.Dir = filepath.Join(d.machinesDir, m.ID)
	clone.Template, clone.Warnings = nil, nil
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, d.Destroy(ctx, m))
	}()
	memory, err := template.NewMemory(int64(m.Memory) << 20)
	if err != nil {
		return err
	}
	defer memory.Close()
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return err
	}
	if err := createDisks(ctx, d.programs, m.Dir, &clone); err != nil {
		return err
	}
	info := template.Info{
		Key: key, Image: image, CPUs: m.CPUs, Memory: m.Memory, Network: network.Kind(m.Network), Disks: len(clone.Disks),
	}
	if info.Inner, err = s.bootTemplate(ctx, m, clone, memory); err != nil {
		return err
	}
	if info.Agent, err = s.settle(ctx, m, info.Inner); err != nil {
		return err
	}
	info.CreatedAt = time.Now().UTC()
	if err := s.freeze(ctx, m); err != nil {
		return fmt.Errorf("saving its guest: %w", err)
	}
	return s.publish(ctx, m, clone, info, memory)
}

// bootTemplate starts the guest with the inner identity.
func (s *memoryStarts) bootTemplate(ctx context.Context, m vm.Machine, clone cloneConfig, memory *os.File) (network.Inner, error) {
	d := s.driver
	if err := writeConfig(m.Dir, clone); err != nil {
		return network.Inner{}, err
	}
	qemu, setup, err := baseSetup(ctx, d, m, clone)
	if err != nil {
		return network.Inner{}, err
	}
	tap, inner, err := d.networks.manager.AttachTemplate(ctx, network.Kind(m.Network), m.ID)
	if err != nil {
		return inner, err
	}
	setup.attachment, setup.mac = attachment{Tap: tap}, inner.MAC
	setup.ram = ram{memory: memory, share: true}
	command, err := setup.command(ctx, qemu)
	if err != nil {
		return inner, err
	}
	if err := spawn(ctx, d, m, command); err != nil {
		return inner, err
	}
	pid, err := process.Holder(m.Dir)
	if err != nil {
		return inner, err
	}
	if err := lowerPriority(pid); err != nil {
		s.log.Warn("a template's guest boots with the priority of machines", "err", err)
	}
	return inner, nil
}

// settle waits until the guest has its address and has started its services. It
// reports whether the guest has an agent.
func (s *memoryStarts) settle(ctx context.Context, m vm.Machine, inner network.Inner) (agent bool, err error) {
	mac, err := net.ParseMAC(inner.MAC)
	if err != nil {
		return false, err
	}
	pid, err := process.Holder(m.Dir)
	if err != nil || pid == 0 {
		return false, errors.Join(err, errors.New("its guest ended while it booted"))
	}
	for {
		a, err := s.driver.networks.manager.Address(mac)
		if err != nil {
			return false, err
		}
		if a == inner.Address {
			break
		}
		if err := s.pause(ctx, m, pid, addressLook); err != nil {
			return false, err
		}
	}
	var live liveState
	deadline := time.Now().Add(settleMost)
	for idle := 0; idle < settleTries && (idle == 0 || !live.agentOpen) && time.Now().Before(deadline); {
		before := demand(pid)
		if err := s.pause(ctx, m, pid, settleTime); err != nil {
			return false, err
		}
		idle++
		if demand(pid)-before >= time.Duration(settleShare*float64(settleTime)) {
			idle = 0
		}
		if err := s.driver.withMonitor(ctx, m.Dir, live.ask); err != nil {
			return false, err
		}
	}
	return live.agentOpen && s.agentAnswers(ctx, filepath.Join(m.Dir, agentSocket)), nil
}

// agentAnswers reports whether the agent at the socket answers. It leaves the agent without a client.
func (s *memoryStarts) agentAnswers(ctx context.Context, socket string) bool {
	defer s.driver.agents.Release(socket)
	for range agentTries {
		ctx, cancel := context.WithTimeout(ctx, agentTry)
		err := s.driver.agents.Ping(ctx, socket)
		cancel()
		if err == nil {
			return true
		}
	}
	return false
}

// pause waits for d, in which the guest runs.
func (s *memoryStarts) pause(ctx context.Context, m vm.Machine, pid int, d time.Duration) error {
	if err := waitRunning(ctx, d); err != nil {
		return err
	}
	if !process.Holds(m.Dir, pid) {
		process.AwaitSupervisor(ctx, m.Dir)
		return fmt.Errorf("its guest ended while it booted: %v", lastEnding(m.Dir))
	}
	return nil
}

// freeze stops the guest, writes the state of its devices to a file and ends QEMU.
func (s *memoryStarts) freeze(ctx context.Context, m vm.Machine) error {
	state, err := os.OpenFile(filepath.Join(m.Dir, stateName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer state.Close()
	pid, err := process.Holder(m.Dir)
	if err != nil {
		return err
	}
	err = s.driver.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error {
		if err := q.Ask("stop", nil); err != nil {
			return err
		}
		if err := prepareMigration(q, state); err != nil {
			return err
		}
		if err := q.AskWith("migrate", map[string]any{"uri": "fd:" + stateName}, nil, nil); err != nil {
			return err
		}
		if err := awaitMigration(ctx, q); err != nil {
			return err
		}
		return q.Ask("quit", nil)
	})
	if err != nil {
		return err
	}
	ending, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	if err := process.Wait(ending, "QEMU's end", func() bool { return !process.Holds(m.Dir, pid) }); err != nil {
		return err
	}
	process.AwaitSupervisor(ctx, m.Dir)
	return nil
}

// publish makes the template of what the guest left.
func (s *memoryStarts) publish(ctx context.Context, m vm.Machine, clone cloneConfig, info template.Info, memory *os.File) error {
	if err := template.Seal(memory); err != nil {
		return err
	}
	f := template.Files{State: filepath.Join(m.Dir, stateName), Memory: memory}
	for i, d := range clone.Disks {
		if err := d.Check(m.Dir); err != nil {
			return err
		}
		empty := disk.Disk{
			Bus: d.Bus, Controller: d.Controller, Unit: d.Unit,
			Overlay: fmt.Sprintf("empty%d.qcow2", i), Backing: d.Backing, Base: frozenName(i), Size: d.Size,
		}
		if err := empty.CreateOverlay(m.Dir); err != nil {
			return err
		}
		f.Disks = append(f.Disks, filepath.Join(m.Dir, d.Overlay))
		f.Empty = append(f.Empty, filepath.Join(m.Dir, empty.Overlay))
	}
	if clone.Firmware == "efi" {
		f.Vars = filepath.Join(m.Dir, varsFile)
	}
	return s.store.Publish(info, f)
}
