package vsphere

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/session/keepalive"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/singleflight"
)

const (
	// callsAtOnce bounds the calls to the server that are under way. vCenter limits what one session may have.
	callsAtOnce = 32

	// loginTimeout bounds connecting and logging in.
	loginTimeout = 30 * time.Second

	// keepaliveEvery is how often an idle session is used. vCenter ends one that is idle for 30 minutes.
	keepaliveEvery = 5 * time.Minute
)

// session is the connection to vCenter or ESXi. It logs in when it is first used and again whenever the server has
// ended the session; callers that meet this at the same time share one login.
type session struct {
	opts   Options
	ctx    context.Context // ends when the session is closed
	cancel context.CancelFunc
	slots  chan struct{}      // has a value for each call under way
	shared singleflight.Group // connecting, and logging in

	mu     sync.Mutex // guards what follows
	client *vim25.Client
	logins int // how often the session has logged in
	alive  *keepalive.HandlerSOAP
}

func newSession(o Options) *session {
	ctx, cancel := context.WithCancel(context.Background())
	return &session{opts: o, ctx: ctx, cancel: cancel, slots: make(chan struct{}, callsAtOnce)}
}

// connect returns the client. The first call connects and logs in.
func (s *session) connect(ctx context.Context) (*vim25.Client, error) {
	s.mu.Lock()
	c, logins := s.client, s.logins
	s.mu.Unlock()
	if c != nil && logins > 0 {
		return c, nil
	}
	if err := s.share(ctx, "connect", s.open); err != nil {
		return nil, err
	}
	if err := s.login(ctx, 0); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client, nil
}

// share runs f once for all callers with this key and waits for it until ctx ends.
func (s *session) share(ctx context.Context, key string, f func(ctx context.Context) error) error {
	result := s.shared.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(s.ctx, min(loginTimeout, s.opts.CallTimeout))
		defer cancel()
		return nil, f(ctx)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return s.explain(r.Err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open makes the client. It asks the server what it is, for which no login is needed.
func (s *session) open(ctx context.Context) error {
	s.mu.Lock()
	opened := s.client != nil
	s.mu.Unlock()
	if opened {
		return nil
	}
	u, err := url.Parse(s.opts.URL)
	if err != nil {
		return err
	}
	u.User = nil
	c := soap.NewClient(u, s.opts.Insecure)
	c.UserAgent = "osx-builder"
	c.DefaultTransport().MaxIdleConnsPerHost = callsAtOnce // otherwise most calls begin with a TLS handshake
	if s.opts.CAFile != "" {
		if err := c.SetRootCAs(s.opts.CAFile); err != nil {
			return unavailable(err, "-vsphere-ca-file %s cannot be used: %v", s.opts.CAFile, err)
		}
	}
	if s.opts.Thumbprint != "" {
		c.SetThumbprint(u.Host, strings.ToUpper(s.opts.Thumbprint))
	}
	client, err := vim25.NewClient(ctx, c)
	if err != nil {
		return err
	}
	client.RoundTripper = s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.alive = client, keepalive.NewHandlerSOAP(client.Client, keepaliveEvery, nil)
	return nil
}

// login logs in unless the session has logged in more than logins times already.
func (s *session) login(ctx context.Context, logins int) error {
	return s.share(ctx, fmt.Sprint("login ", logins), func(ctx context.Context) error {
		s.mu.Lock()
		client, alive, done := s.client, s.alive, s.logins > logins
		s.mu.Unlock()
		if done {
			return nil
		}
		password, err := s.opts.ReadPassword()
		if err != nil {
			return unavailable(err, "the password for %s cannot be read: %v", s.opts.URL, err)
		}
		_, err = methods.Login(ctx, alive, &types.Login{
			This: *client.ServiceContent.SessionManager, UserName: s.opts.Username, Password: password,
		})
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logins++
		return nil
	})
}

// RoundTrip implements [soap.RoundTripper] for all calls but those that log in. It waits for a slot, logs in again if
// the server has ended the session, and repeats the call then. A call that only reads is also repeated once after the
// connection failed.
func (s *session) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	next, logins := s.client.Client, s.logins
	s.mu.Unlock()
	call := func() error {
		limited, cancel := context.WithTimeoutCause(ctx, s.opts.CallTimeout, errNoAnswer)
		defer cancel()
		err := next.RoundTrip(limited, req, res)
		if err != nil && context.Cause(limited) == errNoAnswer {
			return unavailable(errNoAnswer, "%s has not answered a call for %v", s.opts.URL, s.opts.CallTimeout)
		}
		return err
	}
	again := func() error {
		// The decoder keeps the fault of an answer that was decoded into res before.
		reflect.ValueOf(res).Elem().SetZero()
		return call()
	}
	err := call()
	if onlyReads(req) && isConnectionError(err) && ctx.Err() == nil {
		err = again()
	}
	if !isNotAuthenticated(err, res) {
		return err
	}
	if err := s.login(ctx, logins); err != nil {
		return err
	}
	return again()
}

// onlyReads reports whether a call may be repeated although the server may have executed it.
func onlyReads(req soap.HasFault) bool {
	switch req.(type) {
	case *methods.RetrievePropertiesBody, *methods.RetrievePropertiesExBody, *methods.FindByUuidBody, *methods.FindChildBody:
		return true
	}
	return false
}

// close logs out. Calls that are under way end.
func (s *session) close() error {
	s.cancel()
	s.mu.Lock()
	client, alive, logins := s.client, s.alive, s.logins
	s.mu.Unlock()
	if client == nil {
		return nil
	}
	var err error
	if logins > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, err = methods.Logout(ctx, alive, &types.Logout{This: *client.ServiceContent.SessionManager})
		if fault := faultOf(err); fault != nil {
			err = nil // the session has ended already
		}
		alive.Stop()
	}
	client.CloseIdleConnections()
	if err != nil {
		s.opts.Log.Warn("the session was not ended", "url", s.opts.URL, "err", err)
	}
	return nil
}
