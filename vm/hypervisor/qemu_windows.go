package hypervisor

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"osx-builder/vm"
)

// hasQEMU reports whether this program can open the driver for QEMU.
const hasQEMU = false

// QEMU has the settings of the driver for QEMU on other systems. None has an effect on Windows.
type QEMU struct {
	Forward                    []int
	Network, Bridge, NATSubnet string
	Isolate                    bool
	DiskReserve                int64
	TemplateMemory             int64
	TemplateAge                time.Duration
}

var errNoQEMU = &vm.Error{
	Code:    vm.CodeHypervisorUnavailable,
	Message: "the driver qemu does not exist on Windows; start with -driver vmrun, vix or vsphere",
}

// qemuCandidate is a candidate only by its name, so that a daemon that asks for it learns that it does not exist.
func qemuCandidate(*vm.DataFolder, *slog.Logger, QEMU) Candidate {
	return Candidate{
		Name: "qemu", Product: "QEMU", OnlyByName: true,
		OwnsMachine: func(string) bool { return false },
		Open:        func() (Driver, error) { return nil, errNoQEMU },
	}
}

// CleanNetworks returns an error: on Windows the daemon creates no networks.
func CleanNetworks(context.Context, string, *slog.Logger) error {
	return errors.New("-clean-network: on Windows the daemon creates no networks; VMware has its own")
}
