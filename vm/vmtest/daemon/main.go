// Command daemon is the daemon with the in-memory driver, for tests that start and
// kill it hundreds of times. Everything except the driver is as in the real daemon.
// Each step of the driver takes a random time, so that a kill can interrupt any of
// them.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"osx-builder/api"
	"osx-builder/api/server"
	"osx-builder/callback"
	"osx-builder/config"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// maxDelay is the longest delay of a step of the driver.
const maxDelay = 40 * time.Millisecond

func main() {
	debug.SetGCPercent(50) // as in the real daemon
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	c, err := config.Load(os.Args[1:], os.Getenv)
	if err != nil {
		return err
	}
	log, err := c.OpenLog(os.Stderr)
	if err != nil {
		return err
	}
	defer log.Close()
	front, err := server.Listen(server.Options{
		Listen: c.Listen, Connections: c.Connections, ReadTokens: config.SecretFile(c.TokenFile, log.Logger),
		TLSCert: c.TLSCert, TLSKey: c.TLSKey, Log: log.Logger,
	})
	if err != nil {
		return err
	}
	defer front.Close()
	metrics := api.NewMetrics("test")
	images, err := image.Open(filepath.Join(c.Data, "images"), image.Options{
		Downloaded: metrics.Downloaded, Log: log.Logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	callbacks := callback.New(callback.Options{})
	defer callbacks.Close()
	vms, err := vm.Open(vm.Options{
		Dir: filepath.Join(c.Data, "vms"), Driver: &vmtest.Driver{Hook: randomDelay}, Hypervisor: "memory",
		Images: images, Callbacks: callbacks, Creations: c.Creations, VMs: c.VMs, PerOwner: vm.OwnerLimits{VMs: c.VMsPerToken, MemoryMiB: int(c.MemoryPerToken >> 20)}, MaxLifetime: c.MaxLifetime,
		Hooks: metrics.Hooks(), Log: log.Logger,
	})
	if err != nil {
		return err
	}
	defer vms.Close()
	return front.Serve(ctx, nil, server.Service{
		Handler: api.New(vms, api.Options{Log: log.Logger, Metrics: metrics, FindToken: front.FindToken()}),
		Stop:    vms.Close,
	})
}

// randomDelay delays a step of the driver by a random time. It does not delay
// Inspect.
func randomDelay(ctx context.Context, s vmtest.Step, _ vm.Machine) error {
	if s == vmtest.Inspect {
		return nil
	}
	t := time.NewTimer(rand.N(maxDelay))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
