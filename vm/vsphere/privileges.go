package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// privileges lists what the service account needs on the folder, the resource pool, the datastore and the port groups.
// README.md has them as a role, which also has the few that the folder above needs.
var privileges = struct{ folder, pool, datastore, portGroup []string }{
	folder: []string{
		"VirtualMachine.Inventory.Create", "VirtualMachine.Inventory.CreateFromExisting", "VirtualMachine.Inventory.Delete",
		"VirtualMachine.Provisioning.Clone", "VirtualMachine.Provisioning.DeployTemplate", "VirtualMachine.Provisioning.MarkAsTemplate",
		"VirtualMachine.State.CreateSnapshot", "VirtualMachine.Config.AddNewDisk", "VirtualMachine.Config.AddExistingDisk",
		"VirtualMachine.Config.AddRemoveDevice", "VirtualMachine.Config.EditDevice", "VirtualMachine.Config.CPUCount",
		"VirtualMachine.Config.Memory", "VirtualMachine.Config.AdvancedConfig", "VirtualMachine.Config.Annotation",
		"VirtualMachine.Config.Settings", "VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff",
		"VirtualMachine.Interact.Suspend", "VirtualMachine.Interact.Reset", "VirtualMachine.Interact.ConsoleInteract",
	},
	pool:      []string{"Resource.AssignVMToPool", "VApp.Import"},
	datastore: []string{"Datastore.AllocateSpace", "Datastore.Browse", "Datastore.FileManagement"},
	portGroup: []string{"Network.Assign"},
}

// checkPrivileges returns an error that names the privileges that the user lacks. A stand-alone ESXi is not asked: its
// users are administrators or may only read.
func (s *site) checkPrivileges(ctx context.Context, user string) error {
	if !s.isVC {
		return nil
	}
	var me mo.SessionManager
	if err := properties(ctx, s.client, *s.client.ServiceContent.SessionManager, &me, "currentSession"); err != nil {
		return err
	}
	if me.CurrentSession != nil {
		user = me.CurrentSession.UserName
	}
	var lacks []string
	for _, check := range []struct {
		what    string
		objects []ref
		ids     []string
	}{
		{"folder", []ref{s.folder}, privileges.folder},
		{"resource pool", []ref{s.pool}, privileges.pool},
		{"datastore", []ref{s.datastore}, privileges.datastore},
		{"port groups", s.portGroups, privileges.portGroup},
	} {
		if len(check.objects) == 0 {
			continue
		}
		missing, err := s.missingPrivileges(ctx, user, check.objects, check.ids)
		if err != nil {
			return err
		}
		for _, id := range missing {
			lacks = append(lacks, id+" on the "+check.what)
		}
	}
	if len(lacks) > 0 {
		return unavailable(nil, "the user %q lacks these privileges: %s; add them to the user's role (vm/vsphere/README.md lists all)", user, strings.Join(lacks, ", "))
	}
	return nil
}

// missingPrivileges returns those of the privileges that the user lacks on one of the objects.
func (s *site) missingPrivileges(ctx context.Context, user string, objects []ref, ids []string) (missing []string, err error) {
	res, err := methods.HasUserPrivilegeOnEntities(ctx, s.client, &types.HasUserPrivilegeOnEntities{
		This: *s.client.ServiceContent.AuthorizationManager, Entities: objects, UserName: user, PrivId: ids,
	})
	if err != nil {
		return nil, fmt.Errorf("reading the privileges of %q: %w", user, err)
	}
	for _, entity := range res.Returnval {
		for _, p := range entity.PrivAvailability {
			if !p.IsGranted && !slices.Contains(missing, p.PrivId) {
				missing = append(missing, p.PrivId)
			}
		}
	}
	return missing, nil
}
