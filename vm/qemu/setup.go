package qemu

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"

	"osx-builder/vm"
)

// Command returns the program and the arguments with which Start would run the
// cloned machine now in m.Dir. It starts nothing, but it attaches the machine to
// its network as Start does.
func (d *Driver) Command(ctx context.Context, m vm.Machine) ([]string, error) {
	clone, err := readConfig(m.Dir)
	if err != nil {
		return nil, unreadable(m, machineFile, err)
	}
	qemu, s, err := d.prepare(ctx, m, clone)
	if err != nil {
		return nil, err
	}
	return append([]string{qemu.path}, arguments(s)...), nil
}

// prepare collects and creates what the machine needs to start.
func (d *Driver) prepare(ctx context.Context, m vm.Machine, clone cloneConfig) (binary, setup, error) {
	qemu, err := d.binaries.find(ctx)
	if err != nil {
		return qemu, setup{}, err
	}
	s := setup{
		Machine:     m,
		cloneConfig: clone,
		accel:       probeAcceleration().name,
		display:     display(ctx, m, qemu, d.log),
		sandbox:     qemu.sandbox,
		runWith:     qemu.atLeast(9, 1),
		slots:       qemu.atLeast(6, 1),
	}
	if os.Geteuid() == 0 {
		s.user = userOf(m.ID)
	}
	if clone.Firmware == "efi" {
		f, err := findFirmware(qemu.path)
		if err != nil {
			return qemu, setup{}, err
		}
		s.efi = f.code
	}
	if s.netdevs, err = d.networks.attach(ctx, m, clone.NICs); err != nil {
		return qemu, setup{}, err
	}
	return qemu, s, nil
}

// userOf returns the user and group number of the machine's QEMU if the daemon
// is root. Each machine has its own, so that a guest that breaks out of one QEMU
// cannot reach another. Systems give none of the 16 million numbers from
// 0x70000000 to people, services or containers (https://systemd.io/UIDS-GIDS).
func userOf(id string) int {
	sum := sha256.Sum256([]byte(id))
	return 0x70000000 + int(sum[0])<<16 + int(sum[1])<<8 + int(sum[2])
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
