package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"osx-builder/config"
	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vix"
)

// closingDriver is a driver that main closes.
type closingDriver interface {
	vm.Driver
	vm.Readier
	io.Closer
}

// drivers names those that this program has, for -version.
func drivers() string {
	if vix.Supported() {
		return "vix, qemu"
	}
	return "qemu"
}

// openDriver chooses the hypervisor, and says which and why. One that was
// asked for by name must be ready. Else it is VMware where that answers, and
// QEMU otherwise; where QEMU is missing too the daemon starts without, and
// says what is missing here and to each client.
//
// Machines stay on the hypervisor that they were made on: another one would
// neither find them running nor end them.
func openDriver(ctx context.Context, c config.Config, log *slog.Logger) (d closingDriver, name string, err error) {
	dir := filepath.Join(c.Data, machines)
	onVMware, onQEMU := count(dir, vix.Made), count(dir, qemu.Made)
	switch {
	case c.Driver == "vix" && onQEMU > 0:
		return nil, "", others(c, onQEMU, "QEMU", "qemu")
	case c.Driver == "qemu" && onVMware > 0:
		return nil, "", others(c, onVMware, "VMware", "vix")
	}
	why := "asked for"
	if c.Driver == "auto" && onQEMU > 0 {
		why = "the machines of the data folder run on it"
	} else if c.Driver != "qemu" {
		v, err := openVIX(c, log)
		if err == nil {
			log.Info("driver chosen", "driver", "vix", "asked", c.Driver, "why", "VMware answers")
			return v, "vix", nil
		}
		missing := new(vm.Error)
		if c.Driver == "vix" || onVMware > 0 || !errors.As(err, &missing) {
			return nil, "", fmt.Errorf("-driver %s: %w", c.Driver, err)
		}
		why = missing.Message
	}
	d, err = openQEMU(ctx, c, log, why)
	return d, "qemu", err
}

func openVIX(c config.Config, log *slog.Logger) (*vix.Driver, error) {
	return vix.Open(vix.Options{
		Dir: filepath.Join(c.Data, "vix"), Library: c.VIXLibrary, HostOptions: c.VIXHostOptions, Log: log,
	})
}

func openQEMU(ctx context.Context, c config.Config, log *slog.Logger, why string) (closingDriver, error) {
	d, err := qemu.Open(qemu.Options{
		Dir: c.Data, MachinesDir: filepath.Join(c.Data, machines), Forward: c.Forward, Network: c.Network,
		Bridge: c.Bridge, NATSubnet: c.NATSubnet, Isolate: c.Isolate,
		Gold: filepath.Join(c.Data, "images", "gold"), DiskReserve: c.DiskReserve, Log: log,
	})
	if err != nil {
		return nil, err
	}
	err = d.Ready(ctx)
	switch {
	case err != nil && c.Driver != "auto":
		return nil, errors.Join(fmt.Errorf("-driver %s: %w", c.Driver, err), d.Close())
	case err != nil:
		log.Warn("no machine can be made", "driver", "qemu", "err", err, "why not vix", why)
	default:
		log.Info("driver chosen", "driver", "qemu", "asked", c.Driver, "why", why)
	}
	return d, nil
}

// count counts the machines that one driver made.
func count(dir string, made func(dir string) bool) (n int) {
	entries, _ := os.ReadDir(dir) // without the folder there is none
	for _, e := range entries {
		if e.IsDir() && made(filepath.Join(dir, e.Name())) {
			n++
		}
	}
	return n
}

// others is the error for a data folder whose machines run elsewhere.
func others(c config.Config, n int, hypervisor, driver string) error {
	return fmt.Errorf("-driver %s: %d machines of the data folder %s run on %s; start with -driver %s, or choose another folder with -data",
		c.Driver, n, c.Data, hypervisor, driver)
}
