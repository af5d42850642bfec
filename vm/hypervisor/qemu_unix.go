//go:build !windows

package hypervisor

import (
	"context"
	"log/slog"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
)

// hasQEMU reports whether this program can open the driver for QEMU.
const hasQEMU = true

// QEMU says how the driver for QEMU runs machines.
type QEMU = qemu.Options

func qemuCandidate(data *vm.DataFolder, log *slog.Logger, q QEMU) Candidate {
	q.Dir, q.MachinesDir, q.Gold, q.Log = data.Path(), data.Machines(), data.Gold(), log
	return Candidate{
		Name: "qemu", Product: "QEMU", OwnsMachine: qemu.OwnsMachine,
		Open: func() (Driver, error) {
			d, err := qemu.Open(q)
			if err != nil {
				return nil, err
			}
			return d, nil
		},
	}
}

// CleanNetworks removes the networks of the data folder at path, which no daemon may use meanwhile: one that runs would
// create again what its machines need.
func CleanNetworks(ctx context.Context, path string, log *slog.Logger) error {
	data, err := vm.OpenDataFolder(path, "-clean-network", log)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := qemu.CleanNetworks(ctx, qemu.Options{Dir: data.Path(), Log: log}); err != nil {
		return err
	}
	log.Info("networks removed", "data", data.Path())
	return nil
}
