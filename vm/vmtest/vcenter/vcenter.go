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

	// Hook, if set, is called before each call, with the name of the method, such as CloneVM_Task. A fault that it
	// returns is the call's. Calls may come side by side.
	Hook func(method string) types.BaseMethodFault

	// TaskHook is like Hook for the tasks that change machines. A fault that it returns is that of the task.
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

	mu        sync.Mutex
	calls     map[string]int  // by method; guarded by mu
	importing map[string]bool // names of imports that have begun; guarded by mu
}

// handOver lets properties be read while a task runs. The simulator has one such setting for all servers.
var handOver sync.Once

// Start starts a server. The caller closes it.
func Start(o Options) (*Server, error) {
	handOver.Do(func() { simulator.TaskDelay.MethodDelay = map[string]int{"LockHandoff": 0} })
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
	s := &Server{opts: o, model: model, guests: &guests{booted: make(map[types.ManagedObjectReference]bool)}, calls: make(map[string]int), importing: make(map[string]bool)}
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
	}
	switch m.Name {
	case "RetrievePropertiesEx":
		s.guests.update(ctx)
	case "ImportVApp":
		if fault := s.reserveName(m); fault != nil {
			return nil, fault
		}
	case "Destroy_Task":
		s.mu.Lock()
		clear(s.importing)
		s.mu.Unlock()
	case "PowerOffVM_Task", "ResetVM_Task", "SuspendVM_Task":
		s.guests.stop(m.This)
	}
	if s.opts.TaskHook != nil && ctx.Session != nil {
		s.failTasks(ctx, m)
	}
	return nil, nil
}

// reserveName refuses an import with the name of another one or of a machine, as a vCenter does. The simulator checks
// names before it adds the machine, so that imports at the same moment would share one.
func (s *Server) reserveName(m *simulator.Method) types.BaseMethodFault {
	call, ok := m.Body.(*types.ImportVApp)
	if !ok {
		return nil
	}
	spec, ok := call.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		return nil
	}
	name := spec.ConfigSpec.Name
	exists := slices.Contains(s.Machines(), name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if exists || s.importing[name] {
		return &types.DuplicateName{Name: name, Object: m.This}
	}
	s.importing[name] = true
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
