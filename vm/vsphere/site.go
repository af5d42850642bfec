package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// siteKept is how long Ready trusts what it found out about the inventory.
const siteKept = time.Minute

// site is the part of the server's inventory that the settings name.
type site struct {
	client *vim25.Client
	isVC   bool // a vCenter, not a stand-alone ESXi

	datacenter, folder, pool, datastore ref
	datastoreName                       string
	networks                            map[vm.NetworkType]types.BaseVirtualDeviceBackingInfo
	portGroups                          []ref
	limits                              vm.Limits
	hosts                               int
	found                               time.Time
}

// sites finds the site and remembers it.
type sites struct {
	session *session

	mu   sync.Mutex
	last *site // nil until it was found; guarded by mu
}

// current returns the site, which it finds if it is not known.
func (s *sites) current(ctx context.Context) (*site, error) {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last != nil {
		return last, nil
	}
	return s.find(ctx)
}

// forget makes the next call find the site again, because one of its objects may have been replaced.
func (s *sites) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
}

// known returns the site as it was found last, or nil.
func (s *sites) known() *site {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// find finds every object that the settings name. An error says which is missing.
func (s *sites) find(ctx context.Context) (*site, error) {
	c, err := s.session.connect(ctx)
	if err != nil {
		return nil, err
	}
	o := s.session.opts
	found := &site{client: c, isVC: c.IsVC(), found: time.Now(), networks: make(map[vm.NetworkType]types.BaseVirtualDeviceBackingInfo)}
	f := find.NewFinder(c, false)
	for _, step := range []func(context.Context, *find.Finder, Settings) error{
		found.findDatacenter, found.findFolder, found.findPool, found.findDatastore, found.findNetworks, found.findHosts,
	} {
		if err := step(ctx, f, o.Settings); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, s.session.explainFault("finding what the settings name on "+o.URL, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = found
	return found, nil
}

// missing returns the client's error for an object that does not exist or of which several do.
func missing(err error, setting, value, what string) error {
	_, none := errors.AsType[*find.NotFoundError](err)
	_, noDefault := errors.AsType[*find.DefaultNotFoundError](err)
	_, several := errors.AsType[*find.MultipleFoundError](err)
	_, severalDefaults := errors.AsType[*find.DefaultMultipleFoundError](err)
	switch {
	case none:
		return unavailable(err, "-%s: vSphere has no %s %q, or the user may not see it", setting, what, value)
	case noDefault:
		return unavailable(err, "vSphere has no %s, or the user may not see it", what)
	case several:
		return unavailable(err, "-%s: vSphere has several of the name %q; write the inventory path of the %s", setting, value, what)
	case severalDefaults:
		return unavailable(err, "vSphere has more than one %s; choose one with -%s", what, setting)
	}
	return err
}

func (s *site) findDatacenter(ctx context.Context, f *find.Finder, o Settings) error {
	dc, err := f.DatacenterOrDefault(ctx, o.Datacenter)
	if err != nil {
		return missing(err, "vsphere-datacenter", o.Datacenter, "datacenter")
	}
	s.datacenter = dc.Reference()
	f.SetDatacenter(dc)
	return nil
}

// findFolder finds the folder of the machines. On a vCenter it makes one that is missing in an existing folder.
func (s *site) findFolder(ctx context.Context, f *find.Finder, o Settings) error {
	folder, err := f.FolderOrDefault(ctx, o.Folder)
	if _, none := errors.AsType[*find.NotFoundError](err); none && s.isVC {
		var parent *object.Folder
		if dir := path.Dir(o.Folder); dir != "." && dir != "/" {
			parent, err = f.Folder(ctx, dir)
		} else {
			parent, err = f.DefaultFolder(ctx)
		}
		if err == nil {
			folder, err = parent.CreateFolder(ctx, path.Base(o.Folder))
		}
	}
	if err != nil {
		return missing(err, "vsphere-folder", o.Folder, "folder")
	}
	s.folder = folder.Reference()
	return nil
}

func (s *site) findPool(ctx context.Context, f *find.Finder, o Settings) error {
	if o.Cluster == "" {
		pool, err := f.ResourcePoolOrDefault(ctx, o.Pool)
		if err != nil {
			setting := "vsphere-pool"
			if o.Pool == "" {
				setting = "vsphere-cluster or -vsphere-pool"
			}
			return missing(err, setting, o.Pool, "resource pool")
		}
		s.pool = pool.Reference()
		return nil
	}
	cluster, err := f.ComputeResource(ctx, o.Cluster)
	if err != nil {
		return missing(err, "vsphere-cluster", o.Cluster, "cluster")
	}
	pool, err := cluster.ResourcePool(ctx)
	if err != nil {
		return err
	}
	s.pool = pool.Reference()
	return nil
}

func (s *site) findDatastore(ctx context.Context, f *find.Finder, o Settings) error {
	ds, err := f.DatastoreOrDefault(ctx, o.Datastore)
	if err != nil {
		return missing(err, "vsphere-datastore", o.Datastore, "datastore")
	}
	s.datastore, s.datastoreName = ds.Reference(), ds.Name()
	return nil
}

func (s *site) findNetworks(ctx context.Context, f *find.Finder, o Settings) error {
	for _, t := range slices.Sorted(maps.Keys(o.Networks)) {
		n, err := f.Network(ctx, o.Networks[t])
		if err != nil {
			return missing(err, "vsphere-network", o.Networks[t], "port group")
		}
		s.portGroups = append(s.portGroups, n.Reference())
		if s.networks[vm.NetworkType(t)], err = n.EthernetCardBackingInfo(ctx); err != nil {
			return fmt.Errorf("reading the port group %q: %w", o.Networks[t], err)
		}
	}
	return nil
}

// findHosts reads how large a machine the hosts can run. Hosts that cannot take machines now do not count.
func (s *site) findHosts(ctx context.Context, _ *find.Finder, _ Settings) error {
	var pool mo.ResourcePool
	if err := properties(ctx, s.client, s.pool, &pool, "owner"); err != nil {
		return err
	}
	objects, err := retrieve(ctx, s.client, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{
			Obj: pool.Owner, Skip: types.NewBool(true),
			SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "ComputeResource", Path: "host"}},
		}},
		PropSet: []types.PropertySpec{{Type: "HostSystem", PathSet: []string{"summary.hardware", "runtime.inMaintenanceMode", "runtime.connectionState"}}},
	})
	if err != nil {
		return err
	}
	for _, content := range objects {
		var h mo.HostSystem
		if mo.LoadObjectContent([]types.ObjectContent{content}, &h) != nil || h.Summary.Hardware == nil ||
			h.Runtime.InMaintenanceMode || h.Runtime.ConnectionState != types.HostSystemConnectionStateConnected {
			continue
		}
		memory := int(h.Summary.Hardware.MemorySize >> 20)
		s.hosts++
		s.limits.CPUs = max(s.limits.CPUs, int(h.Summary.Hardware.NumCpuThreads))
		s.limits.Memory = max(s.limits.Memory, memory)
		s.limits.AllMemory += memory
	}
	if s.hosts == 0 {
		return unavailable(nil, "no host of the resource pool is connected and out of maintenance mode")
	}
	return nil
}
