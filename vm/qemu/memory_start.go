package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu/network"
	"osx-builder/vm/qemu/process"
	"osx-builder/vm/qemu/qmp"
	"osx-builder/vm/qemu/template"
)

const (
	// lifeTimeout bounds how long a guest that continues takes to answer. It
	// answers within 30 milliseconds on an idle host.
	lifeTimeout = 2 * time.Second

	// loadTimeout bounds how long QEMU loads the state of its devices.
	loadTimeout = 10 * time.Second
)

// startOrConvert starts a clone for the first time. If anything fails, the clone
// becomes an ordinary one that boots, and started is false. It begins from the
// template again if an earlier call was interrupted.
func (s *memoryStarts) startOrConvert(ctx context.Context, m vm.Machine, clone *cloneConfig) (started bool, err error) {
	why := s.start(ctx, m, clone)
	if why == nil {
		s.setClock(ctx, m, *clone.Template)
		return true, nil
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err := s.kill(ctx, m); err != nil {
		return false, err
	}
	return false, s.bootInstead(ctx, m, clone, why)
}

// kill ends what an attempt to start from memory has left.
func (s *memoryStarts) kill(ctx context.Context, m vm.Machine) error {
	if err := process.Kill(ctx, m.Dir); err != nil {
		return err
	}
	if err := process.KillOrphans(ctx, m.ID); err != nil {
		return err
	}
	process.AwaitSupervisor(ctx, m.Dir)
	return nil
}

// start returns once the guest has given a sign of life.
func (s *memoryStarts) start(ctx context.Context, m vm.Machine, clone *cloneConfig) error {
	s.loading.Add(1)
	defer s.loading.Add(-1)
	at := clone.Template
	continued, err := s.continuePreloaded(ctx, m, clone)
	if !continued {
		t, loading := s.loadTemplate(ctx, m, clone)
		if loading != nil {
			return loading
		}
		at.Agent, at.SavedAt = t.Agent, t.CreatedAt
		_, err = s.resume(ctx, m, clone)
	}
	if err != nil {
		return err
	}
	s.followRestart(m)
	return nil
}

// resume lets a guest run that is loaded, and returns once it has given a sign of
// life and the clone's configuration says so. It asks for that before the guest runs:
// the question waits at the tap. continued is false if QEMU has not let the guest run.
func (s *memoryStarts) resume(ctx context.Context, m vm.Machine, clone *cloneConfig) (continued bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	address := readAttachments(m.Dir).Address
	alive := make(chan error, 1)
	go func() {
		alive <- s.driver.networks.manager.Alive(ctx, network.Kind(m.Network), address, macAddress(m.ID))
	}()
	if err := s.driver.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error { return q.Ask("cont", nil) }); err != nil {
		cancel(err)
		<-alive
		return false, err
	}
	defer s.awaiting.add(m.Dir)()
	go func() {
		if waitRunning(ctx, lifeTimeout) == nil {
			cancel(fmt.Errorf("it does not answer ARP requests for %v", lifeTimeout))
		}
	}()
	if err := <-alive; err != nil {
		return true, fmt.Errorf("the guest gave no sign of life: %w", err)
	}
	clone.Template.Loaded, clone.Template.Machine = true, m
	return true, writeConfig(m.Dir, *clone)
}

// waitRunning waits until the host has run for d. It counts short steps instead of reading
// the clock: seconds in which the host stood still, with all its programs, are one step,
// and are not taken from the guest that is given d. If ctx ends first, it returns the cause.
func waitRunning(ctx context.Context, d time.Duration) error {
	const step = 50 * time.Millisecond
	for range d / step {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(step):
		}
	}
	return nil
}

// loadTemplate starts the machine's QEMU and loads the template, which it returns.
// The guest waits.
func (s *memoryStarts) loadTemplate(ctx context.Context, m vm.Machine, clone *cloneConfig) (template.Template, error) {
	if err := s.kill(ctx, m); err != nil {
		return template.Template{}, err
	}
	key, _, err := s.key(ctx, m, *clone, clone.Template.Image)
	if err != nil {
		return template.Template{}, err
	}
	if key != clone.Template.Key {
		return template.Template{}, errors.New("the host, its network or QEMU changed after the machine was cloned")
	}
	t, memory, err := s.store.Get(key)
	if err != nil {
		return t, err
	}
	defer memory.Close()
	if err := s.createDisks(m.Dir, clone, t); err != nil {
		return t, fmt.Errorf("copying the template's disks: %w", err)
	}
	if err := s.launch(ctx, m, *clone, memory); err != nil {
		return t, err
	}
	if err := s.load(ctx, m, t); err != nil {
		return t, fmt.Errorf("loading the memory: %w", err)
	}
	return t, nil
}

// launch starts a QEMU that waits for the state of its devices.
func (s *memoryStarts) launch(ctx context.Context, m vm.Machine, clone cloneConfig, memory *os.File) error {
	d := s.driver
	qemu, setup, err := baseSetup(ctx, d, m, clone)
	if err != nil {
		return err
	}
	if setup.attachments, err = d.networks.attachInner(ctx, m, clone.Template.Inner); err != nil {
		return err
	}
	setup.mac = clone.Template.Inner.MAC
	setup.ram = ram{memory: memory, incoming: true}
	command, err := setup.command(ctx, qemu)
	if err != nil {
		return err
	}
	return spawn(ctx, d, m, command)
}

// load loads the state. A restart of the guest will end QEMU: the guest must come
// back with its own identity.
func (s *memoryStarts) load(ctx context.Context, m vm.Machine, t template.Template) error {
	state, err := t.OpenState()
	if err != nil {
		return err
	}
	defer state.Close()
	ctx, cancel := qmp.WithTimeout(ctx, loadTimeout)
	defer cancel()
	return s.driver.withMonitor(ctx, m.Dir, func(q *qmp.Monitor) error {
		if err := prepareMigration(q, state); err != nil {
			return err
		}
		// QEMU would announce the guest with five broadcasts, and each would wake every other QEMU of the network.
		if err := q.AskWith("migrate-set-parameters", map[string]any{"announce-rounds": 0}, nil, nil); err != nil {
			return err
		}
		if err := q.AskWith("migrate-incoming", map[string]any{"uri": "fd:" + stateName}, nil, nil); err != nil {
			return err
		}
		if err := awaitMigration(ctx, q); err != nil {
			return err
		}
		return q.AskWith("set-action", map[string]any{"reboot": "shutdown"}, nil, nil)
	})
}

// stateName is QEMU's name for the descriptor of the state's file.
const stateName = "state"

// prepareMigration makes QEMU leave out the memory, which is shared, and hands it
// the file of the state.
func prepareMigration(q *qmp.Monitor, state *os.File) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	err := q.AskWith("migrate-set-capabilities", map[string]any{
		"capabilities": []capability{{"x-ignore-shared", true}, {"events", true}},
	}, nil, nil)
	if err != nil {
		return err
	}
	return q.AskWith("getfd", map[string]any{"fdname": stateName}, []*os.File{state}, nil)
}

// awaitMigration waits until QEMU has saved or loaded the state.
func awaitMigration(ctx context.Context, q *qmp.Monitor) error {
	const look = 2 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		var m struct {
			Status string
			Error  string `json:"error-desc"`
		}
		if err := q.Ask("query-migrate", &m); err != nil {
			return err
		}
		switch m.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU reports that it %s: %s", m.Status, m.Error)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// becomeOrdinary makes the clone, which has run from memory and is off now, one
// that boots from its disks with its own identity.
func becomeOrdinary(m vm.Machine, clone *cloneConfig) error {
	clone.Template = nil
	return writeConfig(m.Dir, *clone)
}
