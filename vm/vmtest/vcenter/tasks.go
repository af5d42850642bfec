package vcenter

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Tasks lists the methods whose tasks Options.TaskHook can fail.
func Tasks() []string {
	return []string{
		"CloneVM_Task", "CreateSnapshot_Task", "CreateVM_Task", "Destroy_Task", "PowerOffVM_Task", "PowerOnVM_Task", "ReconfigVM_Task",
		"SuspendVM_Task",
	}
}

// failTasks puts objects whose tasks can fail in the place of the simulator's. The session's objects come first there.
func (s *Server) failTasks(ctx *simulator.Context, m *simulator.Method) {
	switch o := ctx.Map.Get(m.This).(type) {
	case *simulator.VirtualMachine:
		if _, done := ctx.Session.Registry.Get(m.This).(*machine); !done {
			ctx.Session.Registry.Put(&machine{o, s.opts.TaskHook})
		}
	case *simulator.Folder:
		if _, done := ctx.Session.Registry.Get(m.This).(*folder); !done {
			ctx.Session.Registry.Put(&folder{o, s.opts.TaskHook})
		}
	case nil:
		if ctx.Session.Registry.Get(m.This) != nil && m.This.Type == "VirtualMachine" {
			ctx.Session.Registry.Remove(ctx, m.This) // it was destroyed
		}
	}
}

// fail begins a task that fails.
func fail(ctx *simulator.Context, at types.ManagedObjectReference, method string, fault types.BaseMethodFault) types.ManagedObjectReference {
	return simulator.CreateTask(at, method, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return nil, fault
	}).Run(ctx)
}

// folder is a folder in which making a machine can fail.
type folder struct {
	*simulator.Folder
	hook func(method string) types.BaseMethodFault
}

// CreateVMTask implements the method of the API.
func (f *folder) CreateVMTask(ctx *simulator.Context, req *types.CreateVM_Task) soap.HasFault {
	if fault := f.hook("CreateVM_Task"); fault != nil {
		return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: fail(ctx, f.Self, "createVm", fault)}}
	}
	return f.Folder.CreateVMTask(ctx, req)
}

// machine is a machine whose tasks can fail.
type machine struct {
	*simulator.VirtualMachine
	hook func(method string) types.BaseMethodFault
}

// CloneVMTask implements the method of the API, like the methods below.
func (v *machine) CloneVMTask(ctx *simulator.Context, req *types.CloneVM_Task) soap.HasFault {
	if fault := v.hook("CloneVM_Task"); fault != nil {
		return &methods.CloneVM_TaskBody{Res: &types.CloneVM_TaskResponse{Returnval: fail(ctx, v.Self, "cloneVm", fault)}}
	}
	return v.VirtualMachine.CloneVMTask(ctx, req)
}

// ReconfigVMTask changes the configuration.
func (v *machine) ReconfigVMTask(ctx *simulator.Context, req *types.ReconfigVM_Task) soap.HasFault {
	if fault := v.hook("ReconfigVM_Task"); fault != nil {
		return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: fail(ctx, v.Self, "reconfigVm", fault)}}
	}
	return v.VirtualMachine.ReconfigVMTask(ctx, req)
}

// CreateSnapshotTask makes a snapshot.
func (v *machine) CreateSnapshotTask(ctx *simulator.Context, req *types.CreateSnapshot_Task) soap.HasFault {
	if fault := v.hook("CreateSnapshot_Task"); fault != nil {
		return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: fail(ctx, v.Self, "createSnapshot", fault)}}
	}
	return v.VirtualMachine.CreateSnapshotTask(ctx, req)
}

// PowerOnVMTask powers the machine on.
func (v *machine) PowerOnVMTask(ctx *simulator.Context, req *types.PowerOnVM_Task) soap.HasFault {
	if fault := v.hook("PowerOnVM_Task"); fault != nil {
		return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: fail(ctx, v.Self, "powerOn", fault)}}
	}
	return v.VirtualMachine.PowerOnVMTask(ctx, req)
}

// PowerOffVMTask powers the machine off.
func (v *machine) PowerOffVMTask(ctx *simulator.Context, req *types.PowerOffVM_Task) soap.HasFault {
	if fault := v.hook("PowerOffVM_Task"); fault != nil {
		return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: fail(ctx, v.Self, "powerOff", fault)}}
	}
	return v.VirtualMachine.PowerOffVMTask(ctx, req)
}

// SuspendVMTask suspends the machine.
func (v *machine) SuspendVMTask(ctx *simulator.Context, req *types.SuspendVM_Task) soap.HasFault {
	if fault := v.hook("SuspendVM_Task"); fault != nil {
		return &methods.SuspendVM_TaskBody{Res: &types.SuspendVM_TaskResponse{Returnval: fail(ctx, v.Self, "suspend", fault)}}
	}
	return v.VirtualMachine.SuspendVMTask(ctx, req)
}

// DestroyTask removes the machine.
func (v *machine) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	if fault := v.hook("Destroy_Task"); fault != nil {
		return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: fail(ctx, v.Self, "destroy", fault)}}
	}
	return v.VirtualMachine.DestroyTask(ctx, req)
}
