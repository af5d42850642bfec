// Package vcenter simulates a vCenter or a stand-alone ESXi for tests and for the demonstration. It is govmomi's
// simulator with what that lacks: guests with tools and addresses, screens, and tasks that fail on request.
package vcenter

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// The account that the server knows.
const (
	Username = "builder@vsphere.local"
	Password = "planted-Passw0rd"
)

// Options are the settings of a [Server]. The zero Options make a vCenter.
type Options struct {
	ESX      bool   // a stand-alone ESXi instead of a vCenter
	Address  string // to listen on, such as 127.0.0.1:8989; "" means a free port
	Hosts    int    // in the cluster; 0 means 3
	Clusters int    // 0 means 1

	PageSize int  // how many objects a list has before it is continued; 0 means all
	Copies   bool // refuses machines with linked disks, as some storage of an ESXi does
	Damaged  bool // the checksums of uploads are those of other bytes

	// Hook, if set, is called before each call, with the name of the method, such as CloneVM_Task. A fault that it
	// returns is the call's. The call is executed once it returns, even if the client has gone. Calls may come side by
	// side.
	Hook func(method string) types.BaseMethodFault

	// TaskHook is like Hook for the calls that begin a task. A fault that it returns is that of the task.
	TaskHook func(method string) types.BaseMethodFault
}

// Server is a simulated vCenter or ESXi.
type Server struct {
	URL        string // of the API, without user information
	CAFile     string // PEM file with the server's certificate
	Thumbprint string // SHA-256 of the certificate

	opts   Options
	model  *simulator.Model
	server *simulator.Server
	guests *guests

	mu       sync.Mutex
	calls    map[string]int  // by method; guarded by mu
	reserved map[string]bool // names of machines whose making has begun; guarded by mu
	revoked  map[string]bool // privileges that the account lacks; guarded by mu
}

// handOver lets properties be read while a task runs. The simulator has one such setting for all servers.
var handOver sync.Once

func letRead() { simulator.TaskDelay.MethodDelay = map[string]int{"LockHandoff": 0} }

// Start starts a server. The caller closes it.
func Start(o Options) (*Server, error) {
	handOver.Do(letRead)
	model := simulator.VPX()
	if o.ESX {
		model = simulator.ESX()
	}
	model.Machine, model.Autostart = 0, false
	if o.Hosts > 0 {
		model.ClusterHost = o.Hosts
	}
	if o.Clusters > 0 {
		model.Cluster = o.Clusters
	}
	if err := model.Create(); err != nil {
		model.Remove()
		return nil, fmt.Errorf("making the inventory: %w", err)
	}
	s := &Server{opts: o, model: model, guests: &guests{booted: make(map[types.ManagedObjectReference]bool)}, calls: make(map[string]int), reserved: make(map[string]bool)}
	model.Service.TLS = &tls.Config{} // #nosec G402 -- of a test's server
	model.Service.Listen = &url.URL{Host: o.Address, User: url.UserPassword(Username, Password)}
	model.Service.HandleFunc("/screen", s.screen)
	model.Map().Handler = s.handle
	s.server = model.Service.NewServer()
	u := *s.server.URL
	u.User = nil
	s.URL, s.Thumbprint = u.String(), soap.ThumbprintSHA256(s.server.Certificate())
	var err error
	if s.CAFile, err = s.server.CertificateFile(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the server and removes its files.
func (s *Server) Close() {
	s.server.Close()
	s.model.Remove()
	stale, _ := filepath.Glob(s.CAFile)
	for _, path := range stale {
		_ = os.Remove(path)
	}
}

// handle is called before each call.
func (s *Server) handle(ctx *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	s.mu.Lock()
	s.calls[m.Name]++
	s.mu.Unlock()
	if s.opts.Hook != nil {
		if fault := s.opts.Hook(m.Name); fault != nil {
			return nil, fault
		}
		if m.This.Type == "VirtualMachine" && ctx.Map.Get(m.This) == nil { // the simulator looked it up before
			return nil, &types.ManagedObjectNotFound{Obj: m.This}
		}
	}
	if s.opts.TaskHook != nil && beginsTask(m.Name) && ctx.Session != nil {
		if fault := s.opts.TaskHook(m.Name); fault != nil {
			return divert(m, failedTask(ctx, m, fault)), nil
		}
	}
	switch call := m.Body.(type) {
	case *types.RetrievePropertiesEx:
		s.guests.update(ctx)
		call.Options.MaxObjects = int32(s.opts.PageSize) // #nosec G115 -- a test's
	case *types.HttpNfcLeaseGetManifest:
		if lease, ok := ctx.Session.Get(m.This).(*simulator.HttpNfcLease); ok && s.opts.Damaged {
			return divert(m, damaged(lease)), nil
		}
	case *types.HasUserPrivilegeOnEntities:
		return divert(m, s.privilegesOf(call)), nil
	case *types.ImportVApp:
		if spec, ok := call.Spec.(*types.VirtualMachineImportSpec); ok {
			return nil, s.reserveName(m, spec.ConfigSpec.Name)
		}
	case *types.CreateVM_Task:
		if s.opts.Copies && hasLinkedDisks(call) {
			return divert(m, failedTask(ctx, m, &types.InvalidDeviceBacking{})), nil
		}
		return nil, s.reserveName(m, call.Config.Name)
	case *types.CloneVM_Task:
		return nil, s.reserveName(m, call.Name)
	case *types.CancelTask:
		// The simulator says at once that the task has failed, and executes it all the same.
		return nil, &types.NotSupported{}
	case *types.Destroy_Task:
		s.mu.Lock()
		clear(s.reserved)
		s.mu.Unlock()
	case *types.PowerOffVM_Task, *types.ResetVM_Task, *types.SuspendVM_Task:
		s.guests.stop(m.This)
	}
	return nil, nil
}

// reserveName refuses a machine with the name of another one, as a vCenter does. The simulator checks names before it
// adds the machine, so that two that are made at the same moment would share one.
func (s *Server) reserveName(m *simulator.Method, name string) types.BaseMethodFault {
	exists := slices.Contains(s.Machines(), name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if exists || s.reserved[name] {
		return &types.DuplicateName{Name: name, Object: m.This}
	}
	s.reserved[name] = true
	return nil
}

// Calls returns how many calls there have been, by method, and how many in all.
func (s *Server) Calls() (byMethod map[string]int, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byMethod = make(map[string]int)
	for method, n := range s.calls {
		byMethod[method] = n
		all += n
	}
	return byMethod, all
}

// Machines returns the names of the machines and templates.
func (s *Server) Machines() []string {
	var names []string
	for _, e := range s.model.Map().All("VirtualMachine") {
		names = append(names, e.Entity().Name)
	}
	return names
}

// Folders returns the names of the folders on the datastores, such as that of a machine.
func (s *Server) Folders() (names []string) {
	for _, e := range s.model.Map().All("Datastore") {
		entries, _ := os.ReadDir(e.(*simulator.Datastore).Info.GetDatastoreInfo().Url) // none if it is gone
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
	}
	return names
}

// Clusters returns the names of the clusters.
func (s *Server) Clusters() []string {
	var names []string
	for _, e := range s.model.Map().All("ClusterComputeResource") {
		names = append(names, e.Entity().Name)
	}
	return names
}

// Change changes the machine or template with a name, and reports whether there is one.
func (s *Server) Change(name string, change func(v *mo.VirtualMachine)) bool {
	for _, e := range s.model.Map().All("VirtualMachine") {
		v, ok := e.(*simulator.VirtualMachine)
		if !ok || v.Name != name {
			continue
		}
		s.model.Map().WithLock(s.model.Service.Context, v, func() { change(&v.VirtualMachine) })
		return true
	}
	return false
}

// Duplicate adds n copies of a machine without making them by the API, each changed by change.
func (s *Server) Duplicate(name string, n int, change func(i int, v *mo.VirtualMachine)) error {
	ctx, all := s.model.Service.Context, s.model.Map()
	for _, e := range all.All("VirtualMachine") {
		v, ok := e.(*simulator.VirtualMachine)
		if !ok || v.Name != name {
			continue
		}
		folder := all.Get(*v.Parent).(*simulator.Folder)
		text, err := json.Marshal(v.Config.ExtraConfig)
		if err != nil {
			return err
		}
		for i := range n {
			twin := &simulator.VirtualMachine{VirtualMachine: v.VirtualMachine}
			twin.Self = types.ManagedObjectReference{}
			config, guest := *v.Config, *v.Guest
			twin.Config, twin.Guest = &config, &guest
			var options []*types.OptionValue
			if err := json.Unmarshal(text, &options); err != nil {
				return err
			}
			config.ExtraConfig = nil
			for _, o := range options {
				config.ExtraConfig = append(config.ExtraConfig, o)
			}
			change(i, &twin.VirtualMachine)
			all.PutEntity(folder, twin)
			all.AppendReference(ctx, folder, &folder.ChildEntity, twin.Self)
		}
		return nil
	}
	return fmt.Errorf("there is no machine %q", name)
}

// screen serves a screen of one white pixel to whoever has a session.
func (s *Server) screen(w http.ResponseWriter, r *http.Request) {
	if _, err := r.Cookie(soap.SessionCookieName); err != nil {
		http.Error(w, "no session", http.StatusUnauthorized)
		return
	}
	id := types.ManagedObjectReference{Type: "VirtualMachine", Value: r.URL.Query().Get("id")}
	if s.model.Map().Get(id) == nil {
		http.NotFound(w, r)
		return
	}
	screen := image.NewGray(image.Rect(0, 0, 1, 1))
	screen.Pix[0] = 0xff
	var b bytes.Buffer
	_ = png.Encode(&b, screen) // to memory it does not fail
	w.Header().Set("Content-Type", "image/png")
	_, _ = w.Write(b.Bytes())
}
