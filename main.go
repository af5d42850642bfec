// Command osx-builder is a small HTTP daemon that turns an image's URL and
// checksum into a running virtual machine, and takes it away again.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"osx-builder/api"
	"osx-builder/callback"
	"osx-builder/config"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmx"
)

// version is set by the linker.
var version = "unknown"

// drainTime is what requests under way get to end once the daemon is told to.
const drainTime = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "osx-builder:", err)
		os.Exit(1)
	}
}

// run is the daemon's life.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) (err error) {
	c, err := config.Load(args, getenv)
	if help := new(config.HelpError); errors.As(err, &help) {
		_, err = fmt.Fprint(stdout, help.Text)
		return err
	}
	if err != nil {
		return err
	}
	if c.Version {
		_, err = fmt.Fprintln(stdout, buildInfo())
		return err
	}
	if c.PrintConfig {
		return c.Print(stdout)
	}
	log := newLog(stderr, c)
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w; choose another address with -listen", c.Listen, err)
	}
	defer listener.Close()
	unlock, err := lock(c.Data, listener.Addr().String())
	if err != nil {
		return err
	}
	defer unlock()
	driver, name, err := openDriver(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	images, err := image.Open(filepath.Join(c.Data, "images"), image.Options{
		Check: vmx.Check, Limits: image.Limits{UnpackedBytes: c.ImageMaxBytes}, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	callbacks := callback.New(callback.Options{})
	defer callbacks.Close()
	vms, err := vm.Open(vm.Options{
		Dir: filepath.Join(c.Data, machines), Driver: driver, Hypervisor: name, Images: images,
		Callbacks: callbacks, Creations: c.Creations, Log: log,
	})
	if err != nil {
		return err
	}
	defer vms.Close()
	host, _, _ := net.SplitHostPort(c.Listen)
	handler := api.New(vms, api.Options{Log: log, Version: version, Hosts: []string{host}})
	return serve(ctx, listener, handler, vms, log)
}

// serve answers requests until ctx ends, then stops the jobs, so that those
// who wait for one have their answer, and lets the requests under way end.
func serve(ctx context.Context, l net.Listener, h http.Handler, vms *vm.Manager, log *slog.Logger) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.RegisterOnShutdown(vms.Close)
	log.Info("listening", "url", "http://"+l.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping; machines keep running")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return s.Close() // those that still have no answer are cut off
	}
	return nil
}

// closingDriver is a driver that main closes.
type closingDriver interface {
	vm.Driver
	vm.Readier
	io.Closer
}

// openDriver chooses the hypervisor, and says which and why. One that was
// asked for by name must be ready; else the daemon starts without, and says
// what is missing here and to each client.
func openDriver(ctx context.Context, c config.Config, log *slog.Logger) (d closingDriver, name string, err error) {
	if c.Driver == "vix" {
		return nil, "", errors.New("-driver vix: this build has no VIX support; use -driver qemu")
	}
	d, err = qemu.Open(qemu.Options{
		Dir: c.Data, MachinesDir: filepath.Join(c.Data, machines), Forward: c.Forward, Network: c.Network, Log: log,
	})
	if err != nil {
		return nil, "", err
	}
	err = d.Ready(ctx)
	switch {
	case err != nil && c.Driver != "auto":
		return nil, "", errors.Join(fmt.Errorf("-driver %s: %w", c.Driver, err), d.Close())
	case err != nil:
		log.Warn("no machine can be made", "driver", "qemu", "err", err)
	default:
		log.Info("driver chosen", "driver", "qemu", "asked", c.Driver)
	}
	return d, "qemu", nil
}

// machines is the data folder's folder of machines.
const machines = "vms"

// lock makes the data folder this daemon's own for as long as it lives. What
// it writes into the lock file is for whoever finds it taken.
func lock(data, address string) (unlock func(), err error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w; choose another with -data", err)
	}
	path := filepath.Join(data, "lock")
	f := flock.New(path, flock.SetPermissions(0o600))
	ok, err := f.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	if !ok {
		holder, _ := os.ReadFile(path) // without it the message only says less
		return nil, fmt.Errorf("the data folder %s is in use by another osx-builder (%s); stop that one or choose another folder with -data", data, strings.TrimSpace(string(holder)))
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "process %d, http://%s\n", os.Getpid(), address), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func newLog(w io.Writer, c config.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// buildInfo is what -version prints.
func buildInfo() string {
	return fmt.Sprintf("osx-builder %s (%s %s/%s), drivers: qemu", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
