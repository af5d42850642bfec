package vsphere

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// The marks of the driver's machines and templates, in their extra configuration.
const (
	markID        = "osxb.id"        // of a machine
	markOwner     = "osxb.owner"     // the data folder's id; of a template, that of the daemon that imports it
	markWhole     = "osxb.whole"     // "1" once everything is done; a machine without it does not exist yet
	markGuestOS   = "osxb.guestos"   // the .vmx file's guestOS
	markImage     = "osxb.image"     // of a template: the checksum, as in "sha256-0123"
	markTemplate  = "osxb.template"  // of a machine: the name of its template
	markNICs      = "osxb.nics"      // of a machine: the network type of each NIC
	markWarnings  = "osxb.warnings"  // of a machine: its warnings as JSON
	markHeartbeat = "osxb.heartbeat" // of a template: changes while it is imported
)

// completeName is the file in a machine's folder that says whose it is. Only OwnsMachine and readers need it.
const completeName = "vsphere.json"

// OwnsMachine reports whether the folder dir holds a machine of this driver.
func OwnsMachine(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, completeName))
	return err == nil
}

// note is the content of the file in a machine's folder. Losing it loses no machine.
type note struct {
	URL      string `json:"url"`
	Name     string `json:"name"`
	Template *ref   `json:"template,omitempty"` // while it is cloned
	Task     *ref   `json:"task,omitempty"`     // that clones it
}

func (d *Driver) writeNote(m vm.Machine, n note) error {
	n.URL, n.Name = d.opts.URL, machineName(m.ID)
	b, err := json.MarshalIndent(n, "", "  ")
	if err == nil {
		err = os.MkdirAll(m.Dir, 0o700)
	}
	if err == nil {
		err = vm.WriteFile(filepath.Join(m.Dir, completeName), append(b, '\n'))
	}
	return err
}

func readNote(m vm.Machine) (n note, err error) {
	b, err := os.ReadFile(filepath.Join(m.Dir, completeName))
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err == nil {
		_ = json.Unmarshal(b, &n) // a damaged note is an empty one
	}
	return n, err
}

// machineName is the name of a machine in the inventory.
func machineName(id string) string { return "osxb-" + id }

// machineRefs remembers where machines are, so that reading one takes one call.
type machineRefs struct {
	mu   sync.Mutex
	byID map[string]ref // guarded by mu
}

func newMachineRefs() *machineRefs { return &machineRefs{byID: make(map[string]ref)} }

func (r *machineRefs) get(id string) (ref, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.byID[id]
	return at, ok
}

func (r *machineRefs) set(id string, at ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[id] = at
}

func (r *machineRefs) remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}

// marks are the driver's entries of an extra configuration.
type marks map[string]string

func readMarks(options []types.BaseOptionValue) marks {
	m := make(marks)
	for _, o := range options {
		v := o.GetOptionValue()
		if text, ok := v.Value.(string); ok && len(v.Key) > 5 && v.Key[:5] == "osxb." {
			m[v.Key] = text
		}
	}
	return m
}

// options returns the marks for a configuration.
func (m marks) options() []types.BaseOptionValue {
	var list []types.BaseOptionValue
	for key, value := range m {
		list = append(list, &types.OptionValue{Key: key, Value: value})
	}
	return list
}

// found is a machine or a template in the inventory.
type found struct {
	at    ref
	marks marks
	mo.VirtualMachine
}

// ours reports whether a machine is that of the id and of this data folder.
func (f *found) ours(owner, id string) bool {
	return f.marks[markID] == id && f.marks[markOwner] == owner
}

func (f *found) whole() bool { return f.marks[markWhole] == "1" }

// findMachine finds the machine of the id, with these properties and its marks. It returns nil if there is none. A
// machine whose place is remembered takes one call, any other two.
func (d *Driver) findMachine(ctx context.Context, s *site, id string, paths ...string) (*found, error) {
	if at, ok := d.machines.get(id); ok {
		f, err := s.read(ctx, at, paths)
		if err != nil || f != nil && f.marks[markID] == id {
			return f, err
		}
		d.machines.remove(id)
	}
	res, err := methods.FindByUuid(ctx, s.client, &types.FindByUuid{
		This: *s.client.ServiceContent.SearchIndex, Datacenter: &s.datacenter, Uuid: id, VmSearch: true, InstanceUuid: types.NewBool(true),
	})
	if err != nil || res.Returnval == nil {
		return nil, err
	}
	f, err := s.read(ctx, *res.Returnval, paths)
	if f != nil && f.marks[markID] == id {
		d.machines.set(id, f.at)
	}
	return f, err
}

// read reads the properties of a machine and its marks. It returns nil if there is no such machine.
func (s *site) read(ctx context.Context, at ref, paths []string) (*found, error) {
	f := &found{at: at}
	err := properties(ctx, s.client, at, &f.VirtualMachine, append([]string{"name", "config.extraConfig"}, paths...)...)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if f.Config != nil {
		f.marks = readMarks(f.Config.ExtraConfig)
	}
	return f, nil
}

// findByName finds the machine or template with a name in the folder, and returns nil if there is none.
func (s *site) findByName(ctx context.Context, name string, paths ...string) (*found, error) {
	res, err := methods.FindChild(ctx, s.client, &types.FindChild{This: *s.client.ServiceContent.SearchIndex, Entity: s.folder, Name: name})
	if err != nil || res.Returnval == nil || res.Returnval.Type != "VirtualMachine" {
		return nil, err
	}
	return s.read(ctx, *res.Returnval, paths)
}
