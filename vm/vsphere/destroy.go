package vsphere

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// Destroy implements [vm.Driver].
func (d *Driver) Destroy(ctx context.Context, m vm.Machine) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not destroying: %w", context.Cause(ctx))
	}
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	if err := d.destroy(ctx, s, m); err != nil {
		return d.explain("destroying the machine", err)
	}
	d.machines.remove(m.ID)
	return os.RemoveAll(m.Dir)
}

func (d *Driver) destroy(ctx context.Context, s *site, m vm.Machine) error {
	n, err := readNote(m)
	if err != nil {
		return err
	}
	if err := s.settleClone(ctx, n); err != nil {
		return err
	}
	c, err := d.findMachine(ctx, s, m.ID, "recentTask")
	if err == nil && c == nil {
		c, err = s.findByName(ctx, machineName(m.ID), "recentTask")
	}
	if err != nil {
		return err
	}
	if c == nil || c.marks[markID] != m.ID {
		return s.removeCopies(ctx, m.ID) // an interrupted clone may have left them
	}
	if c.marks[markOwner] != d.owner {
		return notOurs(c, m)
	}
	return d.removeMachine(ctx, s, m.ID, c)
}

// removeMachine removes a machine. If another task changes it, it waits for that and tries again.
func (d *Driver) removeMachine(ctx context.Context, s *site, id string, c *found) error {
	for tries, delay := 0, 50*time.Millisecond; ; tries, delay = tries+1, min(2*delay, time.Second) {
		err := s.remove(ctx, c.at)
		if tries == changeTries || !isFault[*types.TaskInProgress](err) && !isFault[*types.InvalidPowerState](err) {
			if err != nil {
				return err
			}
			break
		}
		if err := settle(ctx, s.client, c.RecentTask); err != nil {
			return err
		}
		if !sleep(ctx, delay) {
			return context.Cause(ctx)
		}
	}
	return s.removeCopies(ctx, id)
}

// Sweep implements [vm.Driver]: it removes the machines in the folder that have this data folder's mark and an id that
// matches their name, and that are not known.
func (d *Driver) Sweep(ctx context.Context, known func(id string) bool) error {
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	objects, err := children(ctx, s.client, s.folder, "name", "config.extraConfig", "recentTask")
	if err != nil {
		return d.explain("listing the machines", err)
	}
	var errs []error
	for _, c := range loadMachines(objects) {
		id, named := strings.CutPrefix(c.Name, machineName(""))
		if !named || !vm.ValidID(id) || !c.ours(d.owner, id) || known(id) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(d.opts.Machines, id)); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		d.opts.Log.Info("removing a machine that has no record", "vm", id)
		if err := d.removeMachine(ctx, s, id, c); err != nil {
			errs = append(errs, d.explain("removing machine "+id, err))
		}
	}
	return errors.Join(errs...)
}

// loadMachines returns the machines of a list. It leaves out those that the server could not read, such as one whose host is
// away.
func loadMachines(objects []types.ObjectContent) []*found {
	var list []*found
	for _, o := range objects {
		f := &found{at: o.Obj}
		if err := mo.LoadObjectContent([]types.ObjectContent{o}, &f.VirtualMachine); err != nil || f.Config == nil {
			continue
		}
		f.marks = readMarks(f.Config.ExtraConfig)
		list = append(list, f)
	}
	return list
}
