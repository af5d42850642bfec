package vcenter

import (
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// taskBody is the answer of a call that begins a task.
type taskBody struct {
	Res    any `xml:"-"` // such as types.CloneVM_TaskResponse, whose name is that of the element
	Fault_ *soap.Fault
}

// Fault implements [soap.HasFault].
func (b *taskBody) Fault() *soap.Fault { return b.Fault_ }

// beginsTask reports whether calls of a method begin a task.
func beginsTask(method string) bool { return strings.HasSuffix(method, "_Task") }

// taskResponses are the answers to the calls of the driver that begin a task.
var taskResponses = map[string]any{
	"CloneVM_Task":             types.CloneVM_TaskResponse{},
	"CopyVirtualDisk_Task":     types.CopyVirtualDisk_TaskResponse{},
	"CreateSnapshot_Task":      types.CreateSnapshot_TaskResponse{},
	"CreateVM_Task":            types.CreateVM_TaskResponse{},
	"DeleteDatastoreFile_Task": types.DeleteDatastoreFile_TaskResponse{},
	"Destroy_Task":             types.Destroy_TaskResponse{},
	"PowerOffVM_Task":          types.PowerOffVM_TaskResponse{},
	"PowerOnVM_Task":           types.PowerOnVM_TaskResponse{},
	"ReconfigVM_Task":          types.ReconfigVM_TaskResponse{},
	"ResetVM_Task":             types.ResetVM_TaskResponse{},
	"SuspendVM_Task":           types.SuspendVM_TaskResponse{},
}

// failedTask begins a task that fails, and returns the answer to the call that asked for a task. A method that
// taskResponses lacks fails with a fault that no test expects.
func failedTask(ctx *simulator.Context, m *simulator.Method, fault types.BaseMethodFault) soap.HasFault {
	response, known := taskResponses[m.Name]
	if !known {
		return &taskBody{Fault_: simulator.Fault("taskResponses lacks "+m.Name, &types.NotImplemented{})}
	}
	task := simulator.CreateTask(m.This, strings.TrimSuffix(m.Name, "_Task"), func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return nil, fault
	})
	res := reflect.New(reflect.TypeOf(response)).Elem()
	res.FieldByName("Returnval").Set(reflect.ValueOf(task.Run(ctx)))
	return &taskBody{Res: res.Interface()}
}

// hasLinkedDisks reports whether a call makes a machine with linked disks.
func hasLinkedDisks(call *types.CreateVM_Task) bool {
	for _, change := range call.Config.DeviceChange {
		disk, ok := change.GetVirtualDeviceConfigSpec().Device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		if b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && b.Parent != nil {
			return true
		}
	}
	return false
}
