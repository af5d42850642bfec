package vsphere

import (
	"context"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

var (
	_ vm.Lister  = (*Driver)(nil)
	_ vm.Watcher = (*Driver)(nil)
)

// watchSeconds is how long the server may hold a call that waits for changes, so that the call ends before its deadline.
const watchSeconds = 30

// List implements [vm.Lister]. It takes one call for all machines in the folder, one for each further page of a large
// list, and one for machines that were moved to other folders.
func (d *Driver) List(ctx context.Context, machines []vm.Machine) (map[string]vm.Status, error) {
	s, err := d.site(ctx)
	if err != nil {
		return nil, err
	}
	paths := append([]string{"name", "config.extraConfig"}, statusProperties...)
	objects, err := children(ctx, s.client, s.folder, paths...)
	if err != nil {
		return nil, d.explain("listing the machines", err)
	}
	statuses := make(map[string]vm.Status, len(machines))
	d.addStatuses(statuses, loadMachines(objects))
	var moved []types.ObjectSpec
	for _, m := range machines {
		at, known := d.machines.get(m.ID)
		if _, found := statuses[m.ID]; known && !found {
			moved = append(moved, types.ObjectSpec{Obj: at})
		}
	}
	if len(moved) == 0 {
		return statuses, nil
	}
	objects, err = retrieve(ctx, s.client, types.PropertyFilterSpec{
		ObjectSet: moved, ReportMissingObjectsInResults: types.NewBool(true),
		PropSet: []types.PropertySpec{{Type: "VirtualMachine", PathSet: paths}},
	})
	if err != nil && !isNotFound(err) {
		return nil, d.explain("listing the machines that were moved", err)
	}
	d.addStatuses(statuses, loadMachines(objects))
	return statuses, nil
}

// addStatuses adds the statuses of this data folder's machines, and remembers where they are.
func (d *Driver) addStatuses(statuses map[string]vm.Status, list []*found) {
	for _, c := range list {
		id := c.marks[markID]
		if id == "" || !c.ours(d.owner, id) {
			continue
		}
		if st := d.status(c); st.Power != "" {
			statuses[id] = st
			d.machines.set(id, c.at)
		}
	}
}

// Watch implements [vm.Watcher]. It has a property collector of its own, because the versions of changes are those of
// the collector.
func (d *Driver) Watch(ctx context.Context, changed func()) error {
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	made, err := methods.CreatePropertyCollector(ctx, s.client, &types.CreatePropertyCollector{This: s.client.ServiceContent.PropertyCollector})
	if err != nil {
		return d.explain("watching the machines", err)
	}
	collector := made.Returnval
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = methods.DestroyPropertyCollector(after, s.client, &types.DestroyPropertyCollector{This: collector}) // it ends with the session
	}()
	_, err = methods.CreateFilter(ctx, s.client, &types.CreateFilter{This: collector, Spec: types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{
			Obj: s.folder, Skip: types.NewBool(true),
			SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "Folder", Path: "childEntity"}},
		}},
		PropSet: []types.PropertySpec{{Type: "VirtualMachine", PathSet: []string{"runtime.powerState", "runtime.question", "guest.toolsRunningStatus", "guest.ipAddress"}}},
	}})
	if err != nil {
		return d.explain("watching the machines", err)
	}
	for version := ""; ; {
		res, err := methods.WaitForUpdatesEx(ctx, s.client, &types.WaitForUpdatesEx{
			This: collector, Version: version, Options: &types.WaitOptions{MaxWaitSeconds: types.NewInt32(watchSeconds)},
		})
		if err != nil {
			return d.explain("watching the machines", err)
		}
		if res.Returnval == nil {
			continue // nothing has changed
		}
		version = res.Returnval.Version
		changed()
	}
}
