// Package hypervisor chooses the driver that runs the daemon's machines, and opens it.
package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"osx-builder/vm"
)

// Auto is the name that leaves the choice to [Choose].
const Auto = "auto"

// Driver is an open driver. Whoever opens it closes it.
type Driver interface {
	vm.Driver
	io.Closer
}

// Candidate is a driver that can be chosen.
type Candidate struct {
	Name    string // as -driver names it
	Product string // the hypervisor, as messages name it

	// OwnsMachine reports whether the folder dir holds a machine of this driver.
	OwnsMachine func(dir string) bool

	// OnlyByName keeps [Auto] from choosing the candidate, because its hypervisor is no part of this host.
	OnlyByName bool

	// Open opens the driver. If the hypervisor is missing, either Open or the driver's Ready returns a [*vm.Error].
	Open func() (Driver, error)
}

// Options says what to choose from.
type Options struct {
	Driver     string      // the name of a candidate, or Auto
	Candidates []Candidate // the preferred ones first; at least one
	Data       *vm.DataFolder
	Log        *slog.Logger
}

// Choose opens one of the candidates, returns it with its name, and logs why.
//
// A candidate requested by name must be ready. [Auto] takes the first that is ready, and otherwise the last one: the
// daemon then starts without a hypervisor, and says here and to each client what is missing.
//
// Machines stay on the hypervisor that created them: another one would neither find them running nor stop them.
// Candidates of one product can continue with each other's machines.
func Choose(ctx context.Context, o Options) (Driver, string, error) {
	machines := make([]int, len(o.Candidates))
	for i, c := range o.Candidates {
		machines[i] = countMachines(o.Data.Machines(), c.OwnsMachine)
	}
	if o.Driver == Auto {
		return o.chooseAuto(ctx, machines)
	}
	i := slices.IndexFunc(o.Candidates, func(c Candidate) bool { return c.Name == o.Driver })
	if i < 0 {
		return nil, "", fmt.Errorf("-driver %s: there is no such driver", o.Driver)
	}
	for j, c := range o.Candidates {
		if machines[j] > 0 && c.Product != o.Candidates[i].Product {
			return nil, "", o.foreign(c, machines[j])
		}
	}
	return o.open(ctx, o.Candidates[i], "requested")
}

// foreign is the error if machines run on another hypervisor.
func (o Options) foreign(c Candidate, machines int) error {
	return fmt.Errorf("-driver %s: %d machines of the data folder %s run on %s; start with -driver %s, or choose another folder with -data",
		o.Driver, machines, o.Data.Path(), c.Product, c.Name)
}

// chooseAuto takes the first ready candidate of the product with machines, if there is one, and otherwise the first of all
// that is ready. The last of all candidates need not be ready.
func (o Options) chooseAuto(ctx context.Context, machines []int) (Driver, string, error) {
	var local []Candidate
	owner := ""
	for i, c := range o.Candidates {
		if c.OnlyByName && machines[i] > 0 {
			return nil, "", o.foreign(c, machines[i])
		}
		if c.OnlyByName {
			continue
		}
		local = append(local, c)
		if machines[i] > 0 {
			owner = c.Product
		}
	}
	if owner == "" {
		return o.firstReady(ctx, local)
	}
	const why = "the machines of the data folder run on it"
	var errs []error
	for i, c := range local {
		if c.Product != owner {
			continue
		}
		open := o.open
		if i == len(local)-1 {
			open = o.openAnyway
		}
		d, name, err := open(ctx, c, why)
		if err == nil {
			return d, name, nil
		}
		errs = append(errs, err)
	}
	return nil, "", errors.Join(errs...)
}

// firstReady takes the first candidate that is ready, and otherwise the last one.
func (o Options) firstReady(ctx context.Context, local []Candidate) (Driver, string, error) {
	last := len(local) - 1
	why := "it is the only one"
	refused := make(map[string]string) // by product: why candidates before could not be used
	for _, c := range local[:last] {
		d, name, err := o.open(ctx, c, refused[c.Product]+c.Product+" answers")
		if err == nil {
			return d, name, nil
		}
		missing, ok := errors.AsType[*vm.Error](err)
		if !ok {
			return nil, "", err
		}
		why = c.Product + " is not available"
		refused[c.Product] += missing.Message + "; "
		o.Log.Debug("driver not available", "driver", c.Name, "err", missing)
	}
	d, name, err := o.openAnyway(ctx, local[last], why)
	if err != nil {
		return nil, "", fmt.Errorf("%s%w", refused[local[last].Product], err)
	}
	return d, name, nil
}

// open opens a candidate that must be ready.
func (o Options) open(ctx context.Context, c Candidate, why string) (Driver, string, error) {
	d, err := c.Open()
	if err != nil {
		return nil, "", fmt.Errorf("-driver %s: %w", o.Driver, err)
	}
	if err := d.Ready(ctx); err != nil {
		return nil, "", errors.Join(fmt.Errorf("-driver %s: %w", o.Driver, err), d.Close())
	}
	o.logChoice(ctx, c, d, why)
	return d, c.Name, nil
}

// openAnyway opens a candidate that need not be ready.
func (o Options) openAnyway(ctx context.Context, c Candidate, why string) (Driver, string, error) {
	d, err := c.Open()
	if err != nil {
		return nil, "", err
	}
	if err := d.Ready(ctx); err != nil {
		o.Log.Warn("no machine can be created", "driver", c.Name, "asked", o.Driver, "why", why, "err", err)
		return d, c.Name, nil
	}
	o.logChoice(ctx, c, d, why)
	return d, c.Name, nil
}

// logChoice logs which driver runs the machines, and how fast.
func (o Options) logChoice(ctx context.Context, c Candidate, d Driver, why string) {
	line := o.Log.With("driver", c.Name, "asked", o.Driver, "why", why)
	if how := d.Describe(ctx)["acceleration"]; how != "" {
		line = line.With("acceleration", how)
	}
	line.Info("driver chosen")
}

// countMachines counts the machines of one driver.
func countMachines(dir string, owns func(dir string) bool) (n int) {
	entries, _ := os.ReadDir(dir) // without the folder there is none
	for _, e := range entries {
		if e.IsDir() && owns(filepath.Join(dir, e.Name())) {
			n++
		}
	}
	return n
}
