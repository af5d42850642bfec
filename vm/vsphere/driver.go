package vsphere

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"osx-builder/vm"
)

// ownerFile is the file in the data folder with the id that marks its machines. Two folders must not have one id, so it
// must not be copied with a folder that stays in use.
const ownerFile = "vsphere-owner"

// Driver runs machines on vSphere. Its methods may be called concurrently.
type Driver struct {
	opts    Options
	owner   string // marks the machines of the data folder
	session *session
	sites   *sites

	machines *machineRefs
	imports  *imports
}

var _ vm.Driver = (*Driver)(nil)

// Open opens the driver. It does not connect yet: Ready does, and otherwise the first call that needs it. The caller
// closes the Driver.
func Open(o Options) (*Driver, error) {
	o = o.withDefaults()
	owner, err := readOwner(o.Dir)
	if err != nil {
		return nil, err
	}
	s := newSession(o)
	d := &Driver{opts: o, owner: owner, session: s, sites: &sites{session: s}, machines: newMachineRefs()}
	d.imports = newImports(d)
	return d, d.imports.removeConverted()
}

// readOwner returns the id of the data folder. It makes one if there is none.
func readOwner(dir string) (string, error) {
	path := filepath.Join(dir, ownerFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		id := uuid.NewString()
		return id, vm.WriteFile(path, []byte(id+"\n"))
	}
	if err != nil {
		return "", fmt.Errorf("reading the id of the data folder: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !vm.ValidID(id) {
		return "", fmt.Errorf("%s must have one UUID, which marks this folder's machines on vSphere; restore it from a backup, or destroy the machines by hand and remove the file", path)
	}
	return id, nil
}

// Close ends the session. Machines keep running.
func (d *Driver) Close() error { return d.session.close() }

// site returns the objects that the settings name.
func (d *Driver) site(ctx context.Context) (*site, error) { return d.sites.current(ctx) }

// explain returns the client's error for what failed. If an object is missing, the site is found again for the next
// call.
func (d *Driver) explain(what string, err error) error {
	if isNotFound(err) {
		d.sites.forget()
	}
	return d.session.explainFault(what, err)
}

// Limits implements [vm.Driver]. Before the hosts are known there are none.
func (d *Driver) Limits() vm.Limits {
	if s := d.sites.known(); s != nil {
		return s.limits
	}
	return vm.Limits{CPUs: 768, Memory: 24 << 20, AllMemory: 1 << 30} // vSphere's own maximum of a machine
}

// Network implements [vm.Driver].
func (d *Driver) Network(t vm.NetworkType) error {
	if d.opts.Networks[string(t)] == "" {
		return &vm.Error{
			Code:    vm.CodeNetworkUnavailable,
			Message: fmt.Sprintf("there is no port group for %s machines; name one with -vsphere-network %s=NAME, or choose another network type", t, t),
		}
	}
	return nil
}

// Ready implements [vm.Driver].
func (d *Driver) Ready(ctx context.Context) error {
	s := d.sites.known()
	if s != nil && time.Since(s.found) < siteKept {
		return nil
	}
	s, err := d.sites.find(ctx)
	if err == nil {
		err = d.session.explainFault("reading the privileges", s.checkPrivileges(ctx, d.opts.Username))
	}
	if err == nil {
		return nil
	}
	d.sites.forget()
	if e, ok := errors.AsType[*vm.Error](err); ok && e.Code == vm.CodeHypervisorUnavailable {
		return err
	}
	return unavailable(err, "vSphere cannot be used: %v", err)
}

// Describe implements [vm.Driver].
func (d *Driver) Describe(context.Context) map[string]string {
	facts := map[string]string{"url": d.opts.URL, "user": d.opts.Username, "owner": d.owner}
	s := d.sites.known()
	if s == nil {
		return facts
	}
	facts["version"] = s.client.ServiceContent.About.FullName
	facts["datastore"] = s.datastoreName
	facts["hosts"] = strconv.Itoa(s.hosts)
	for _, t := range []vm.NetworkType{vm.NAT, vm.HostOnly, vm.Bridged} {
		if name := d.opts.Networks[string(t)]; name != "" {
			facts["network_"+string(t)] = name
		}
	}
	return facts
}
