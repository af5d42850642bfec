package server

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
)

// serviceName is the service's name in the script that -print-unit prints. A service that is alone in its process may
// have another one.
const serviceName = "osx-builder"

// runService calls serve. If Windows' service manager has started this process, it can stop it, and make it read its
// files again.
func runService(ctx context.Context, hangup chan os.Signal, serve func(context.Context, <-chan os.Signal) error) error {
	isService, err := svc.IsWindowsService()
	if err != nil || !isService && hasStandardError() {
		return serve(ctx, hangup)
	}
	s := &service{ctx: ctx, hangup: hangup, serve: serve}
	err = svc.Run(serviceName, s)
	if errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT) { // it was not the service manager
		return serve(ctx, hangup)
	}
	if err != nil {
		return err
	}
	return s.err
}

// hasStandardError reports whether this process has a standard error, which services do not have.
// [svc.IsWindowsService] does not recognise services in containers, because they are in another session there.
func hasStandardError() bool {
	h, err := windows.GetStdHandle(windows.STD_ERROR_HANDLE)
	return err == nil && h != 0 && h != windows.InvalidHandle
}

// service is the daemon as a Windows service.
type service struct {
	ctx    context.Context
	hangup chan os.Signal
	serve  func(context.Context, <-chan os.Signal) error
	err    error // that serve returned
}

// Execute implements [svc.Handler].
func (s *service) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (isOwnCode bool, code uint32) {
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, s.hangup) }()
	status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptParamChange}
	for {
		select {
		case s.err = <-done:
			if s.err != nil {
				report(s.err)
				return true, 1
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending, WaitHint: uint32(2 * stopTimeout / time.Millisecond)}
				context.AfterFunc(ctx, exitLater)
				stop()
			case svc.ParamChange:
				select {
				case s.hangup <- syscall.SIGHUP:
				default: // the files are about to be read
				}
			}
		}
	}
}

// report writes why the service ends to Windows' event log, because a service has no standard error.
func report(err error) {
	log, openErr := eventlog.Open(serviceName)
	if openErr != nil {
		return
	}
	defer log.Close()
	_ = log.Error(1, err.Error()) // there is nowhere else to say it
}
