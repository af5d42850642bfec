package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"osx-builder/vm"
)

// OwnMachine as [Check].VMX stands for a small machine without an operating system, which the check makes.
const OwnMachine = "own"

// Check walks VMware through a machine's life and prints a report.
type Check struct {
	Out io.Writer
	Dir string // where the folder of the check is created, and removed at the end
	VMX string // the .vmx of an unpacked image, or OwnMachine

	// Drivers returns the candidates for a data folder.
	Drivers func(data *vm.DataFolder, log *slog.Logger) Options

	// Patience is how long to wait for the guest's tools and address, if there is a guest; 2 min.
	Patience time.Duration

	failed int
	guest  bool
}

// Run checks each driver of VMware that this program has. It returns an error if a step of a driver fails, or if no
// driver reaches VMware.
func (c *Check) Run(ctx context.Context) error {
	dir, err := os.MkdirTemp(c.Dir, "osx-builder-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log := slog.New(slog.NewTextHandler(c.Out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	data, err := vm.OpenDataFolder(dir, "check-vmware", log)
	if err != nil {
		return err
	}
	defer data.Close()
	gold, err := c.image(data)
	if err != nil {
		return fmt.Errorf("preparing the image of the check: %w", err)
	}
	if c.Patience <= 0 {
		c.Patience = 2 * time.Minute
	}
	c.printf("osx-builder check-vmware on %s/%s, %d processors", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	reached := false
	for _, candidate := range c.Drivers(data, log).Candidates {
		if candidate.Product == "VMware" {
			reached = c.driver(ctx, candidate, data, gold) || reached
		}
	}
	switch {
	case !reached:
		return errors.New("VMware was not reached; the report says why")
	case c.failed > 0:
		return fmt.Errorf("%d steps failed; please send in the report", c.failed)
	}
	return nil
}

func (c *Check) printf(format string, args ...any) { fmt.Fprintf(c.Out, format+"\n", args...) }

// step prints how a step ended, and reports whether it succeeded.
func (c *Check) step(name string, start time.Time, err error) bool {
	if err != nil {
		c.failed++
		c.printf("FAIL %-10s %v", name, err)
		return false
	}
	c.printf("pass %-10s %v", name, time.Since(start).Round(time.Millisecond))
	return true
}

// driver checks one driver, and reports whether it reaches VMware.
func (c *Check) driver(ctx context.Context, candidate Candidate, data *vm.DataFolder, gold string) bool {
	c.printf("\n%s", candidate.Name)
	start := time.Now()
	d, err := candidate.Open()
	if err != nil {
		c.printf("none connect    %v", err)
		return false
	}
	defer func() {
		if err := d.Close(); err != nil {
			c.step("close", time.Now(), err)
		}
	}()
	if !c.step("connect", start, d.Ready(ctx)) {
		return false
	}
	facts := d.Describe(ctx)
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		c.printf("     %s: %s", name, facts[name])
	}
	id := uuid.NewString()
	m := vm.Machine{
		ID: id, Dir: filepath.Join(data.Machines(), id), CPUs: 1, Memory: 256, Network: vm.NAT, Annotation: "check-vmware",
	}
	c.life(ctx, d, m, gold)
	start = time.Now()
	err = d.Destroy(ctx, m)
	if _, statErr := os.Stat(m.Dir); err == nil && statErr == nil {
		err = fmt.Errorf("%s is left", m.Dir)
	}
	c.step("destroy", start, err)
	return true
}

// life creates the machine, and does with it what the daemon may do.
func (c *Check) life(ctx context.Context, d Driver, m vm.Machine, gold string) {
	start := time.Now()
	if !c.step("clone", start, d.Clone(ctx, m, gold)) {
		return
	}
	bases, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(m.Dir)), "images", "prepared", "*", "vmware", "base.json"))
	for _, base := range bases {
		text, _ := os.ReadFile(base)
		c.printf("     base: %s", text) // Shared says whether the disks are hard links
	}
	start = time.Now()
	if !c.step("start", start, d.Start(ctx, m)) {
		return
	}
	c.locks(m)
	c.step("state", time.Now(), c.power(ctx, d, m, vm.PoweredOn))
	c.address(ctx, d, m)
	if s, ok := d.(vm.Screenshotter); ok {
		start := time.Now()
		png, err := s.Screenshot(ctx, m)
		if err != nil && !c.guest {
			c.printf("none screenshot %v (it needs VMware Tools in a guest)", err)
		} else {
			c.step("screenshot", start, err)
			c.printf("     %d bytes", len(png))
		}
	}
	p, ok := d.(vm.Powerer)
	if !ok {
		return
	}
	for _, step := range []struct {
		action vm.Action
		want   vm.Power
	}{
		{vm.ActionSuspend, vm.Suspended}, {vm.ActionResume, vm.PoweredOn}, {vm.ActionReset, vm.PoweredOn}, {vm.ActionOff, vm.PoweredOff},
	} {
		start := time.Now()
		err := p.Power(ctx, m, step.action)
		if err == nil {
			err = c.power(ctx, d, m, step.want)
		}
		c.step(string(step.action), start, err)
	}
}

// power returns an error if the machine does not have this power state.
func (c *Check) power(ctx context.Context, d Driver, m vm.Machine, want vm.Power) error {
	st, err := d.Inspect(ctx, m)
	if err == nil && st.Power != want {
		err = fmt.Errorf("the power state is %q, want %q", st.Power, want)
	}
	return err
}

// address waits for the guest's tools and address.
func (c *Check) address(ctx context.Context, d Driver, m vm.Machine) {
	if !c.guest {
		c.printf("none address    the machine has no guest: give the .vmx of an image")
		return
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	for {
		st, err := d.Inspect(ctx, m)
		if err == nil && st.IP != "" {
			c.step("address", start, nil)
			c.printf("     %s, MAC %s, tools %s", st.IP, st.MAC, st.Tools)
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			c.step("address", start, fmt.Errorf("none within %v; tools %s, %v", c.Patience, st.Tools, err))
			return
		}
	}
}

// locks prints the form of the machine's locks.
func (c *Check) locks(m vm.Machine) {
	claims, _ := filepath.Glob(filepath.Join(m.Dir, "*.lck", "*"))
	for _, claim := range claims {
		text, _ := os.ReadFile(claim)
		c.printf("     lock %s: %q", strings.TrimPrefix(claim, m.Dir), strings.TrimRight(string(text), "\x00"))
	}
}

// image makes the image of the check and returns its .vmx.
func (c *Check) image(data *vm.DataFolder) (string, error) {
	dir := filepath.Join(data.Gold(), "check")
	c.guest = c.VMX != OwnMachine
	if c.guest {
		return filepath.Join(dir, filepath.Base(c.VMX)), os.CopyFS(dir, os.DirFS(filepath.Dir(c.VMX)))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- as those of the image cache
		return "", err
	}
	for name, content := range map[string]string{
		"check.vmx":      ownVMX,
		"disk.vmdk":      ownDisk,
		"disk-flat.vmdk": strings.Repeat("\x00", 16384*512),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o444); err != nil { // #nosec G306 -- likewise
			return "", err
		}
	}
	return filepath.Join(dir, "check.vmx"), nil
}

const (
	ownVMX = `.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "12"
guestOS = "other-64"
displayName = "osx-builder check"
memsize = "256"
numvcpus = "1"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsilogic"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "disk.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "e1000"
`
	ownDisk = `# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 16384 FLAT "disk-flat.vmdk" 0

# The Disk Data Base
#DDB
ddb.virtualHWVersion = "12"
ddb.geometry.cylinders = "16"
ddb.geometry.heads = "64"
ddb.geometry.sectors = "16"
ddb.adapterType = "lsilogic"
`
)
