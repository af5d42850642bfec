// Command osx-builder is a small HTTP daemon that turns an image's URL and checksum into a running virtual machine, and
// destroys it on request. With a verb it is the command line of a running daemon.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"osx-builder/api"
	"osx-builder/api/client"
	"osx-builder/api/server"
	"osx-builder/callback"
	"osx-builder/config"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/hypervisor"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmx"
	"osx-builder/vm/vmx/ovf"
)

var version = "unknown" // set by the linker

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // Go's default, 100, suits programs that need not leave the memory to machines
	}
	args := config.Args(os.Args[1:])
	if client.HasVerb(args) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		context.AfterFunc(ctx, stop) // a second signal ends the program at once
		os.Exit(client.Run(ctx, client.Options{Args: args, Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: hypervisor.BuildInfo(version)}))
	}
	err := server.Run(func(ctx context.Context, hangup <-chan os.Signal) error {
		return run(ctx, hangup, args, os.Getenv, os.Stdout, os.Stderr)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "osx-builder:", err)
		os.Exit(config.ExitCode(err))
	}
}

// run reads the configuration and does what it asks for.
func run(ctx context.Context, hangup <-chan os.Signal, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	c, err := config.Load(args, getenv)
	if asked, err := config.PrintInfo(stdout, c, err, hypervisor.BuildInfo(version)); asked || err != nil {
		return err
	}
	log, err := c.OpenLog(stderr)
	if err != nil {
		return err
	}
	defer log.Close()
	if c.CleanNetwork {
		return hypervisor.CleanNetworks(ctx, c.Data, log.Logger)
	}
	if c.CheckVMware != "" {
		return (&hypervisor.Check{Out: stdout, Dir: filepath.Dir(c.Data), VMX: c.CheckVMware, Drivers: func(data *vm.DataFolder, log *slog.Logger) hypervisor.Options { return drivers(c, data, log) }}).Run(ctx)
	}
	return hypervisor.Repeat(func() error { return serve(ctx, hangup, c, log) })
}

// serve opens every part of the daemon and answers requests until ctx is done.
func serve(ctx context.Context, hangup <-chan os.Signal, c config.Config, log *config.Log) (err error) {
	front, err := server.Listen(server.Options{
		Listen: c.Listen, Connections: c.Connections, ReadTokens: config.SecretFile(c.TokenFile, log.Logger),
		TLSCert: c.TLSCert, TLSKey: c.TLSKey, Debug: c.DebugListen, Log: log.Logger,
	})
	if err != nil {
		return err
	}
	defer front.Close()
	data, err := vm.OpenDataFolder(c.Data, front.URL(), log.Logger)
	if err != nil {
		return err
	}
	defer data.Close()
	choice := drivers(c, data, log.Logger)
	driver, name, err := hypervisor.Choose(ctx, choice)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, driver.Close()) }()
	ctx, stop := choice.AwaitBetter(ctx, name)
	defer stop()
	hosts, err1 := vm.NewHosts(c.AllowHosts, c.DenyHosts)
	credentials, err2 := image.OpenCredentials(config.SecretText(c.CredentialsFile, log.Logger))
	secrets, err3 := callback.OpenSecrets(config.SecretFile(c.SecretFile, log.Logger))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	metrics := api.NewMetrics(version)
	images, err := image.Open(data.Images(), imageOptions(c, hosts, credentials, metrics, log.Logger))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	callbacks := callback.New(callback.Options{Secrets: secrets.Keys, DialControl: hosts.Control, RootCAs: c.RootCAs})
	defer callbacks.Close()
	vms, err := vm.Open(vm.Options{
		Dir: data.Machines(), Driver: driver, Hypervisor: name, Images: images, Callbacks: callbacks,
		Creations: c.Creations, VMs: c.VMs, MemoryReserve: int(c.MemoryReserve >> 20), Start: vm.StartMode(c.Start), Pools: vm.PoolsFrom(c.Pools), PerOwner: vm.OwnerLimits{VMs: c.VMsPerToken, MemoryMiB: int(c.MemoryPerToken >> 20)}, MaxDisk: c.ImageMaxDisk, MaxLifetime: c.MaxLifetime,
		Hosts: hosts, Hooks: metrics.Hooks(), Log: log.Logger,
	})
	if err != nil {
		return err
	}
	defer vms.Close()
	err = front.Serve(ctx, hangup, server.Service{
		Handler: api.New(vms, api.Options{Log: log.Logger, Version: version, Hosts: c.ClientHosts(), Metrics: metrics, FindToken: front.FindToken()}),
		Reload:  func() error { return errors.Join(log.Reopen(), secrets.Reload(), credentials.Reload()) }, Stop: vms.Close,
	})
	return cmp.Or(err, hypervisor.Better(ctx))
}

// drivers says which hypervisors there are to choose from.
func drivers(c config.Config, data *vm.DataFolder, log *slog.Logger) hypervisor.Options {
	return hypervisor.Options{Driver: c.Driver, Data: data, Log: log, Candidates: hypervisor.Drivers(
		data, log, vix.Options{Library: c.VIXLibrary, HostOptions: c.VIXHostOptions}, c.VMRun,
		hypervisor.QEMU{Forward: c.Forward, Network: c.Network, Bridge: c.Bridge, NATSubnet: c.NATSubnet, Isolate: c.Isolate, DiskReserve: c.DiskReserve, TemplateMemory: c.TemplateMemory, TemplateAge: c.TemplateAge}, hypervisor.VSphere(c.VSphere),
	)}
}

// imageOptions configures the image cache.
func imageOptions(c config.Config, hosts *vm.Hosts, credentials *image.Credentials, metrics *api.Metrics, log *slog.Logger) image.Options {
	return image.Options{
		Prepare: ovf.Prepare[*image.Files], Check: vmx.Checker{MaxDisk: c.ImageMaxDisk}.Check, Derived: vm.PreparedFolder, CacheBytes: c.CacheSize,
		CheckURL: hosts.CheckURL, DialControl: hosts.Control, Downloaded: metrics.Downloaded, Credentials: credentials, RootCAs: c.RootCAs, Log: log,
		Limits: image.Limits{
			DownloadBytes: c.ImageMaxDownload, UnpackedBytes: c.ImageMaxBytes, Entries: c.ImageMaxEntries, PathDepth: c.ImageMaxDepth, PathLength: c.ImageMaxPath, Ratio: c.ImageMaxRatio,
			Stall: c.ImageStall, MinRate: cmp.Or(c.ImageMinRate, -1), Idle: c.ImageMaxIdle, FreeBytes: cmp.Or(c.DiskReserve, -1), // 0 means a default
		},
	}
}
