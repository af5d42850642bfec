//go:build vix && cgo

package vix

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	govix "github.com/hooklift/govix"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// The pauses between attempts to connect to VMware again.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 30 * time.Second
)

// session is a connection to VMware with everything that came from it. When VMware restarts, the session is lost, and
// another takes its place.
type session struct {
	host  *govix.Host
	users int  // calls and open machines; guarded by sessions.mu
	ended bool // it is not the current session any more; guarded by sessions.mu
}

// sessions holds the current session, and replaces it when it is lost.
type sessions struct {
	connect func(ctx context.Context) (*govix.Host, error)
	log     *slog.Logger
	stop    context.CancelFunc
	running context.Context // until stop
	wg      sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	current *session
	lost    error         // why the current session cannot be used, or nil
	renewed chan struct{} // is closed when lost becomes nil
}

func newSessions(host *govix.Host, connect func(ctx context.Context) (*govix.Host, error), log *slog.Logger) *sessions {
	s := &sessions{connect: connect, log: log, current: &session{host: host}}
	s.running, s.stop = context.WithCancel(context.Background())
	return s
}

// use returns the current session. The caller calls done.
func (s *sessions) use() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.users++
	return s.current
}

// retain is another use of a session that is in use.
func (s *sessions) retain(used *session) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	used.users++
	return used
}

// done ends a use. The last one of a session that has ended disconnects it.
func (s *sessions) done(used *session) {
	s.mu.Lock()
	used.users--
	disconnect := used.ended && used.users == 0
	s.mu.Unlock()
	if disconnect {
		used.host.Disconnect()
	}
}

// err returns why VMware cannot be called now, or nil.
func (s *sessions) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// await waits until VMware can be called.
func (s *sessions) await(ctx context.Context, limit <-chan time.Time) error {
	for {
		s.mu.Lock()
		lost, renewed := s.lost, s.renewed
		s.mu.Unlock()
		if lost == nil {
			return nil
		}
		select {
		case <-renewed:
		case <-limit:
			return lost
		case <-ctx.Done():
			return fmt.Errorf("waiting for a connection to VMware: %w", ctx.Err())
		case <-s.running.Done():
			return errClosed()
		}
	}
}

// lose starts to connect again, if a call in the current session failed with cause.
func (s *sessions) lose(used *session, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used != s.current || s.lost != nil || s.running.Err() != nil {
		return
	}
	s.log.Warn("the connection to VMware is lost; connecting again", "err", cause)
	s.lost = lostError(cause)
	s.renewed = make(chan struct{})
	s.wg.Go(s.renew)
}

// renew connects again, and tries until it succeeds or the driver is closed.
func (s *sessions) renew() {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		host, err := s.connect(s.running)
		if err == nil {
			s.replace(host)
			return
		}
		if s.running.Err() != nil {
			return
		}
		s.log.Warn("VMware does not accept a connection; trying again", "err", err)
		s.mu.Lock()
		s.lost = lostError(err)
		s.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-s.running.Done():
			return
		}
	}
}

// replace makes a new session the current one.
func (s *sessions) replace(host *govix.Host) {
	s.mu.Lock()
	old := s.current
	old.ended = true
	old.users++ // until done below
	s.current, s.lost = &session{host: host}, nil
	close(s.renewed)
	s.mu.Unlock()
	s.log.Info("connected to VMware again")
	s.done(old)
}

// end disconnects the current session once it has no users. Afterwards no session may be used.
func (s *sessions) end() {
	s.mu.Lock()
	current := s.current
	current.ended = true
	current.users++
	s.mu.Unlock()
	s.done(current)
}

// close stops connecting. It does not wait for a call of VMware that hangs.
func (s *sessions) close() {
	s.mu.Lock() // lose starts nothing afterwards
	s.stop()
	s.mu.Unlock()
	s.wg.Wait()
}

// lostError is the error of calls while there is no connection.
func lostError(cause error) error {
	return &vm.Error{
		Code:    vm.CodeHypervisorUnavailable,
		Message: fmt.Sprintf("the connection to VMware is lost, and the daemon connects again: %v", message(cause)),
		Err:     cause,
	}
}

// message returns what clients may see of an error.
func message(err error) string {
	if e, ok := errors.AsType[*vm.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// isLost reports whether an error of VIX means that the whole connection is lost. An invalid handle can also be that of
// one machine, except when a machine is opened.
func isLost(err error) bool {
	if isCode(err, vmware.CodeHostNotConnected, vmware.CodeConnectionLost, vmware.CodeNotResponding) {
		return true
	}
	e, ok := errors.AsType[*govix.Error](err)
	return ok && e.Code == vmware.CodeInvalidHandle && e.Operation == operationOpen
}
