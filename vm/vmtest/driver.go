// Package vmtest has the conformance suite that every [vm.Driver] passes, and a
// driver without a hypervisor for other tests.
package vmtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/renameio/v2"

	"osx-builder/vm"
)

// Step names a method of Driver for Driver.Hook.
type Step string

// The steps.
const (
	Clone   Step = "clone"
	Start   Step = "start"
	Inspect Step = "inspect"
	Destroy Step = "destroy"

	Power      Step = "power"
	Screenshot Step = "screenshot"
)

// Driver is a [vm.Driver] whose machines are files: a machine runs if the file in
// Machine.Dir says so, and so outlives the process like a real machine.
type Driver struct {
	// Hook, if set, is called first in every method that has a [Step]. The method
	// returns its error. It may block until ctx ends.
	Hook func(ctx context.Context, s Step, m vm.Machine) error

	// Silent guests never give a sign of life.
	Silent bool

	// Warnings are those of every machine.
	Warnings vm.Warnings

	// Fault is that of every running machine.
	Fault *vm.Error

	// Address is the address of running guests; "" means 192.0.2.1, which nobody has.
	Address string

	// Disk is the size in bytes of every image's first disk; 0 means 1 GiB.
	Disk int64

	// NoAddress lets the tools of guests answer, but gives them no address.
	NoAddress bool

	mu sync.Mutex // guards the machines' files
}

var (
	_ vm.Driver        = (*Driver)(nil)
	_ vm.DiskGrower    = (*Driver)(nil)
	_ vm.Consoler      = (*Driver)(nil)
	_ vm.Screenshotter = (*Driver)(nil)
	_ vm.Powerer       = (*Driver)(nil)
)

// machineFile is the content of a machine's file.
type machineFile struct {
	Machine vm.Machine
	Gold    string
	Power   vm.Power

	StoppedBecause string
	Died           bool
}

func (d *Driver) runHook(ctx context.Context, s Step, m vm.Machine) error {
	if d.Hook != nil {
		if err := d.Hook(ctx, s, m); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Clone implements [vm.Driver].
func (d *Driver) Clone(ctx context.Context, m vm.Machine, gold string) error {
	if err := d.runHook(ctx, Clone, m); err != nil {
		return err
	}
	if _, err := os.Stat(gold); err != nil {
		return fmt.Errorf("reading the image: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := read(m.Dir, &machineFile{}); err == nil {
		return nil
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return err
	}
	return write(m.Dir, machineFile{Machine: m, Gold: gold, Power: vm.PoweredOff})
}

// FirstDisk implements [vm.DiskGrower].
func (d *Driver) FirstDisk(gold string) (bytes int64, err error) {
	if _, err := os.Stat(gold); err != nil {
		return 0, fmt.Errorf("reading the image: %w", err)
	}
	return cmp.Or(d.Disk, 1<<30), nil
}

// Start implements [vm.Driver].
func (d *Driver) Start(ctx context.Context, m vm.Machine) error {
	if err := d.runHook(ctx, Start, m); err != nil {
		return err
	}
	return d.SetPower(m, vm.PoweredOn)
}

// SetPower changes a machine's power state without the Manager, as a guest or an
// operator can. If it powers the machine off, the reason is that the guest shut down.
func (d *Driver) SetPower(m vm.Machine, p vm.Power) error {
	because := ""
	if p == vm.PoweredOff {
		because = "the guest shut down"
	}
	return d.setPower(m, p, because, false)
}

// Kill powers a machine off as if its process on the host was killed.
func (d *Driver) Kill(m vm.Machine, because string) error {
	return d.setPower(m, vm.PoweredOff, because, true)
}

func (d *Driver) setPower(m vm.Machine, p vm.Power, because string, died bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var s machineFile
	if err := read(m.Dir, &s); err != nil {
		return err
	}
	if s.Power == p {
		return nil // keeps the reason for which it stopped
	}
	s.Power, s.StoppedBecause, s.Died = p, because, died
	return write(m.Dir, s)
}

// Power implements [vm.Powerer]. A guest shuts down at once.
func (d *Driver) Power(ctx context.Context, m vm.Machine, a vm.Action) error {
	if err := d.runHook(ctx, Power, m); err != nil {
		return err
	}
	switch a {
	case vm.ActionOff:
		return d.setPower(m, vm.PoweredOff, "it was switched off", false)
	case vm.ActionShutdown:
		return d.SetPower(m, vm.PoweredOff)
	case vm.ActionSuspend:
		return d.SetPower(m, vm.Suspended)
	default:
		return d.SetPower(m, vm.PoweredOn)
	}
}

// Screenshot implements [vm.Screenshotter]: a screen of one white pixel.
func (d *Driver) Screenshot(ctx context.Context, m vm.Machine) ([]byte, error) {
	if err := d.runHook(ctx, Screenshot, m); err != nil {
		return nil, err
	}
	screen := image.NewGray(image.Rect(0, 0, 1, 1))
	screen.Pix[0] = 0xff
	var b bytes.Buffer
	err := png.Encode(&b, screen)
	return b.Bytes(), err
}

// WriteConsole writes to a machine's console as its guest.
func (d *Driver) WriteConsole(m vm.Machine, text string) error {
	f, err := os.OpenFile(filepath.Join(m.Dir, "serial.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Console implements [vm.Consoler].
func (d *Driver) Console(_ context.Context, m vm.Machine) (io.ReadSeekCloser, error) {
	f, err := os.Open(filepath.Join(m.Dir, "serial.log"))
	if err != nil {
		return nil, err // not a typed nil
	}
	return f, nil
}

// Inspect implements [vm.Driver].
func (d *Driver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	if err := d.runHook(ctx, Inspect, m); err != nil {
		return vm.Status{}, err
	}
	var s struct {
		Machine struct {
			CPUs, Memory int
			Network      vm.NetworkType
		}
		Power vm.Power

		StoppedBecause string
		Died           bool
	}
	err := read(m.Dir, &s)
	if errors.Is(err, fs.ErrNotExist) {
		return vm.Status{}, nil
	}
	if err != nil {
		return vm.Status{}, err
	}
	st := vm.Status{
		Power: s.Power, GuestOS: "other", Tools: vm.ToolsNotRunning,
		CPUs: s.Machine.CPUs, Memory: s.Machine.Memory, MAC: "52:00:00:00:00:01",
		StoppedBecause: s.StoppedBecause, Died: s.Died, Warnings: d.Warnings,
	}
	if s.Power == vm.PoweredOn {
		st.Fault = d.Fault
	}
	nic := vm.NIC{Model: "vmxnet3", MACAddress: st.MAC, NetworkType: s.Machine.Network}
	if s.Power == vm.PoweredOn && !d.Silent {
		st.IP, st.Tools, st.Up = cmp.Or(d.Address, "192.0.2.1"), vm.ToolsRunning, true
		if d.NoAddress {
			st.IP = ""
		}
		nic.IPAddress = st.IP
	}
	st.NICs = []vm.NIC{nic}
	return st, nil
}

// Destroy implements [vm.Driver].
func (d *Driver) Destroy(ctx context.Context, m vm.Machine) error {
	if err := d.runHook(ctx, Destroy, m); err != nil {
		return err
	}
	return os.RemoveAll(m.Dir)
}

// Sweep implements [vm.Driver]. Its machines are nothing but their folders.
func (d *Driver) Sweep(context.Context, func(id string) bool) error { return nil }

// Limits implements [vm.Driver]: they are larger than those of any host.
func (d *Driver) Limits() vm.Limits { return vm.Limits{CPUs: 1 << 10, Memory: 1 << 30} }

// Network implements [vm.Driver]: there is a network of each type.
func (d *Driver) Network(vm.NetworkType) error { return nil }

// Ready implements [vm.Driver].
func (d *Driver) Ready(context.Context) error { return nil }

// Describe implements [vm.Driver].
func (d *Driver) Describe(context.Context) map[string]string { return nil }

// read reads the fields that s has from a machine's file.
func read(dir string, s any) error {
	b, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, s)
}

func write(dir string, s machineFile) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, "machine.json"), b, 0o600, renameio.WithTempDir(dir))
}
