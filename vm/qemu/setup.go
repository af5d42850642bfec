package qemu

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/process"
)

// Command returns the program and the arguments with which Start would run the
// cloned machine now in m.Dir. It starts nothing, but it attaches the machine to
// its network as Start does. The descriptors in the arguments are those that Start
// would hand over.
func (d *Driver) Command(ctx context.Context, m vm.Machine) ([]string, error) {
	clone, err := readConfig(m.Dir)
	if err != nil {
		return nil, unreadable(m, machineFile, err)
	}
	command, err := d.prepare(ctx, m, clone)
	if err != nil {
		return nil, err
	}
	return command.Argv, command.Close()
}

// prepare collects, creates and opens what the machine needs to start. The caller
// closes the command's files.
func (d *Driver) prepare(ctx context.Context, m vm.Machine, clone cloneConfig) (process.Command, error) {
	qemu, s, err := baseSetup(ctx, d, m, clone)
	if err != nil {
		return process.Command{}, err
	}
	if s.attachments, err = d.networks.attach(ctx, m, clone.NICs); err != nil {
		return process.Command{}, err
	}
	return s.command(ctx, qemu)
}

// baseSetup collects what the machine needs to start, except its networks.
func baseSetup(ctx context.Context, d *Driver, m vm.Machine, clone cloneConfig) (binary, setup, error) {
	qemu, err := d.programs.forBoard(clone.Board).find(ctx)
	if err != nil {
		return qemu, setup{}, err
	}
	s := setup{
		Machine:     m,
		cloneConfig: clone,
		accel:       probeAcceleration(guestArch(clone.Board)).name,
		display:     display(ctx, m, qemu, d.log),
		sandbox:     qemu.sandbox,
		runWith:     qemu.atLeast(9, 1),
		slots:       qemu.atLeast(6, 1),
		lpa2:        qemu.atLeast(7, 0),
		stale:       qemu.runsStaleCode(),
		groups:      d.groups,
	}
	if s.user, err = d.users.of(m); err != nil {
		return qemu, s, err
	}
	if clone.Firmware == "efi" {
		if s.firmware, err = findFirmware(qemu.path, clone.hardware); err != nil {
			return qemu, s, err
		}
	}
	return qemu, s, nil
}

// command opens the machine's files, and its control group.
func (s *setup) command(ctx context.Context, qemu binary) (process.Command, error) {
	files, err := s.open(ctx)
	if err != nil {
		return process.Command{}, err
	}
	c := process.Command{
		Dir: s.Dir, Argv: append([]string{qemu.path}, arguments(*s)...), Env: s.environment(), Files: files, Rules: s.rules(qemu.path, files),
		Beside: s.beside,
	}
	group, err := s.groups.Create(s.ID, s.groupLimits())
	if err != nil {
		return c, errors.Join(err, c.Close())
	}
	c.Rules.ControlGroup = group
	for name, beside := range c.Beside {
		beside.Rules.ControlGroup = group
		c.Beside[name] = beside
	}
	return c, nil
}

// display returns the kind of window that shows the machine's screen, or "none".
func display(ctx context.Context, m vm.Machine, qemu binary, log *slog.Logger) string {
	const none = "none"
	if !m.LaunchGUI {
		return none
	}
	kinds := []string{"gtk", "sdl"}
	if runtime.GOOS == "darwin" {
		kinds = []string{"cocoa"}
	} else if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		log.Warn("the machine starts without a window: the daemon has neither DISPLAY nor WAYLAND_DISPLAY", "vm", m.ID)
		return none
	}
	out, err := output(ctx, qemu.path, "-display", "help")
	if err != nil {
		log.Warn("the machine starts without a window", "vm", m.ID, "err", err)
		return none
	}
	known := strings.Fields(out)
	for _, kind := range kinds {
		if slices.Contains(known, kind) {
			return kind
		}
	}
	log.Warn("the machine starts without a window: this QEMU was built without one; on Debian install qemu-system-gui", "vm", m.ID, "wanted", kinds)
	return none
}
