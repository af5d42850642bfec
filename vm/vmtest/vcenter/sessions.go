package vcenter

import (
	"context"
	"net/url"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// EndSessions ends all sessions, as an administrator can. A session cannot end itself, so another client does it.
func (s *Server) EndSessions(ctx context.Context) error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return err
	}
	u.User = url.UserPassword(Username, Password)
	c, err := govmomi.NewClient(ctx, u, true)
	if err != nil {
		return err
	}
	defer func() { _ = c.Logout(ctx) }() // it ends with the server
	var all mo.SessionManager
	manager := *c.ServiceContent.SessionManager
	if err := c.RetrieveOne(ctx, manager, []string{"sessionList", "currentSession"}, &all); err != nil {
		return err
	}
	var keys []string
	for _, one := range all.SessionList {
		if one.Key != all.CurrentSession.Key {
			keys = append(keys, one.Key)
		}
	}
	_, err = methods.TerminateSession(ctx, c, &types.TerminateSession{This: manager, SessionId: keys})
	return err
}
