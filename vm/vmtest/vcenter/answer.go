package vcenter

import (
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// answer takes the place of the object that a call is for, and answers it.
type answer struct{ body soap.HasFault }

// Reference implements [mo.Reference]. The simulator has no such object.
func (a *answer) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Answer", Value: "answer"}
}

// Answer is what the simulator calls instead of the method.
func (a *answer) Answer(any) soap.HasFault { return a.body }

// divert makes the simulator answer a call with body. The simulator prefers the session's object to the one that its
// handler returns, so the call needs another name and another object.
func divert(m *simulator.Method, body soap.HasFault) mo.Reference {
	a := &answer{body}
	m.Name, m.This = "Answer", a.Reference()
	return a
}

// damaged answers with the checksums of an upload whose bytes changed on their way.
func damaged(lease *simulator.HttpNfcLease) soap.HasFault {
	res := &types.HttpNfcLeaseGetManifestResponse{}
	for _, d := range lease.Info.DeviceUrl {
		res.Returnval = append(res.Returnval, types.HttpNfcLeaseManifestEntry{Key: d.Key, Sha1: strings.Repeat("0", 40)})
	}
	return &methods.HttpNfcLeaseGetManifestBody{Res: res}
}

// privilegesOf answers whether the user has privileges: all but those that were taken away.
func (s *Server) privilegesOf(req *types.HasUserPrivilegeOnEntities) soap.HasFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := &types.HasUserPrivilegeOnEntitiesResponse{}
	for _, at := range req.Entities {
		e := types.EntityPrivilege{Entity: at}
		for _, id := range req.PrivId {
			e.PrivAvailability = append(e.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: !s.revoked[id]})
		}
		res.Returnval = append(res.Returnval, e)
	}
	return &methods.HasUserPrivilegeOnEntitiesBody{Res: res}
}

// Revoke takes these privileges away from the account, instead of those before. Only the calls that ask for privileges
// show that.
func (s *Server) Revoke(privileges ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = make(map[string]bool)
	for _, id := range privileges {
		s.revoked[id] = true
	}
}
