// Command osx-builder is a small HTTP daemon that turns an image's URL and
// checksum into a running virtual machine, and takes it away again. With a verb
// as its first argument it is the command line of one that runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"osx-builder/api"
	"osx-builder/api/client"
	"osx-builder/api/server"
	"osx-builder/callback"
	"osx-builder/config"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmx"
)

// gcPercent is how much garbage there may be for each 100 bytes in use. The
// default of 100 is for programs with more to do: a daemon beside machines
// leaves them the memory.
const gcPercent = 50

// version is set by the linker.
var version = "unknown"

// stopTime is what the daemon gets to stop. What then still holds it up is cut
// off as a crash would, and recovered as after one.
const stopTime = 9 * time.Second

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if client.Asked(os.Args[1:]) {
		context.AfterFunc(ctx, stop) // a second signal ends it at once
		os.Exit(client.Run(ctx, client.Options{
			Args: os.Args[1:], Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: buildInfo(),
		}))
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the daemon at once
		time.Sleep(stopTime)
		fmt.Fprintf(os.Stderr, "osx-builder: not stopped within %v; the next start goes on where this one was\n", stopTime)
		os.Exit(1)
	})
	if err := run(ctx, hangup, os.Args[1:], os.Getenv, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "osx-builder:", err)
		os.Exit(1)
	}
}

// run is the daemon's life.
func run(ctx context.Context, hangup <-chan os.Signal, args []string, getenv func(string) string, stdout, stderr io.Writer) (err error) {
	c, err := config.Load(args, getenv)
	if err != nil || c.Version || c.PrintConfig || c.PrintUnit != "" {
		return tell(stdout, c, err)
	}
	log, err := c.OpenLog(stderr)
	if err != nil {
		return err
	}
	defer log.Close()
	if c.CleanNetwork {
		return cleanNetwork(ctx, c, log.Logger)
	}
	front, err := server.Listen(serverOptions(c, log.Logger))
	if err != nil {
		return err
	}
	defer front.Close()
	unlock, err := lock(c.Data, front.URL())
	if err != nil {
		return err
	}
	defer unlock()
	driver, name, err := openDriver(ctx, c, log.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	hosts, err := vm.NewHosts(c.AllowHosts, c.DenyHosts)
	if err != nil {
		return err
	}
	metrics := api.NewMetrics(version)
	images, err := image.Open(filepath.Join(c.Data, "images"), imageOptions(c, hosts, metrics, log.Logger))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	signing, reload, err := secrets(c.SecretFile)
	if err != nil {
		return err
	}
	callbacks := callback.New(callback.Options{Secrets: signing, DialControl: hosts.Control})
	defer callbacks.Close()
	vms, err := vm.Open(vm.Options{
		Dir: filepath.Join(c.Data, machines), Driver: driver, Hypervisor: name, Images: images, Callbacks: callbacks,
		Creations: c.Creations, VMs: c.VMs, MemoryReserve: int(c.MemoryReserve >> 20), MaxLifetime: c.MaxLifetime, Hosts: hosts,
		Hooks: metrics.Hooks(), Log: log.Logger,
	})
	if err != nil {
		return err
	}
	defer vms.Close()
	return front.Serve(ctx, hangup, server.Service{
		Handler: api.New(vms, apiOptions(c, front, metrics, log.Logger)),
		Reload:  func() error { return errors.Join(log.Reopen(), reload()) },
		Stop:    vms.Close,
	})
}

// serverOptions are what the sockets are told.
func serverOptions(c config.Config, log *slog.Logger) server.Options {
	return server.Options{
		Listen: c.Listen, Connections: c.Connections, TokenFile: c.TokenFile,
		TLSCert: c.TLSCert, TLSKey: c.TLSKey, Debug: c.DebugListen, Log: log,
	}
}

// apiOptions are what the API is told. The host of -listen is a name by which
// clients may address the daemon.
func apiOptions(c config.Config, front *server.Server, metrics *api.Metrics, log *slog.Logger) api.Options {
	host, _, _ := net.SplitHostPort(c.Listen)
	return api.Options{
		Log: log, Version: version, Hosts: append([]string{host}, c.HostNames...), Metrics: metrics, Authorized: front.Authorized(),
	}
}

// imageOptions are what the image cache is told.
func imageOptions(c config.Config, hosts *vm.Hosts, metrics *api.Metrics, log *slog.Logger) image.Options {
	reserve := c.DiskReserve
	if reserve == 0 {
		reserve = -1 // to the cache, 0 is the default
	}
	return image.Options{
		Check:       vmx.Check,
		CacheBytes:  c.CacheSize,
		Derived:     qemu.PreparedFolder,
		DialControl: hosts.Control,
		Downloaded:  metrics.Downloaded,
		Limits: image.Limits{
			DownloadBytes: c.ImageMaxDownload, UnpackedBytes: c.ImageMaxBytes, Entries: c.ImageMaxEntries,
			PathDepth: c.ImageMaxDepth, PathLength: c.ImageMaxPath, Ratio: c.ImageMaxRatio,
			Stall: c.ImageStall, Idle: c.ImageMaxIdle, FreeBytes: reserve,
		},
		Log: log,
	}
}

// tell answers the flags that ask for words instead of a daemon.
func tell(w io.Writer, c config.Config, err error) error {
	help := new(config.HelpError)
	switch {
	case errors.As(err, &help):
		_, err = fmt.Fprint(w, help.Text)
	case err != nil:
	case c.Version:
		_, err = fmt.Fprintln(w, buildInfo())
	case c.PrintConfig:
		err = c.Print(w)
	default:
		var program, unit string
		if program, err = os.Executable(); err != nil {
			return fmt.Errorf("finding this program: %w", err)
		}
		if unit, err = config.Unit(c.PrintUnit, program); err == nil {
			_, err = fmt.Fprint(w, unit)
		}
	}
	return err
}

// secrets returns the keys that sign callbacks, none without a file, and what
// reads them anew.
func secrets(file string) (keys func() [][]byte, reload func() error, err error) {
	if file == "" {
		return nil, func() error { return nil }, nil
	}
	f, err := callback.OpenSecretFile(file)
	return f.Secrets, f.Reload, err
}

// closingDriver is a driver that main closes.
type closingDriver interface {
	vm.Driver
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
		Gold: filepath.Join(c.Data, "images", "gold"), Dir: filepath.Join(c.Data, "images", qemu.PreparedFolder),
		Library: c.VIXLibrary, HostOptions: c.VIXHostOptions, Log: log,
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

// cleanNetwork is what -clean-network does in place of a daemon, while there
// is none: one that runs would set up again what its machines need.
func cleanNetwork(ctx context.Context, c config.Config, log *slog.Logger) error {
	unlock, err := lock(c.Data, "-clean-network")
	if err != nil {
		return err
	}
	defer unlock()
	if err := qemu.CleanNetworks(ctx, qemu.Options{Dir: c.Data, Log: log}); err != nil {
		return err
	}
	log.Info("networks removed", "data", c.Data)
	return nil
}

// machines is the data folder's folder of machines.
const machines = "vms"

// lock makes the data folder this daemon's own for as long as it lives. What
// it writes into the lock file is for whoever finds it taken.
func lock(data, who string) (unlock func(), err error) {
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
	if err := os.WriteFile(path, fmt.Appendf(nil, "process %d, %s\n", os.Getpid(), who), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// buildInfo is what -version prints.
func buildInfo() string {
	return fmt.Sprintf("osx-builder %s (%s %s/%s), drivers: %s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, drivers())
}
