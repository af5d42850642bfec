package vsphere

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

// errNoAnswer is the cause of the end of a call that took too long.
var errNoAnswer = errors.New("no answer in time")

// taskError is the failure of a task.
type taskError struct {
	name  string
	fault types.LocalizedMethodFault
}

func (e *taskError) Error() string {
	message := e.fault.LocalizedMessage
	if message == "" {
		message = faultName(e.fault.Fault)
	}
	return e.name + ": " + message
}

// faultOf returns the server's fault in err, or nil.
func faultOf(err error) types.BaseMethodFault {
	if e, ok := errors.AsType[*taskError](err); ok {
		return e.fault.Fault
	}
	if e, ok := errors.AsType[interface {
		error
		Fault() types.BaseMethodFault
	}](err); ok {
		return e.Fault()
	}
	return nil
}

// isFault reports whether err is a fault of type T, a pointer to one of the types of vim25/types.
func isFault[T types.BaseMethodFault](err error) bool {
	_, ok := faultOf(err).(T)
	return ok
}

// faultName returns the name of a fault's type, such as "NoDiskSpace".
func faultName(fault types.BaseMethodFault) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", fault), "*types.")
}

// isNotFound reports whether the object of a call does not exist any more.
func isNotFound(err error) bool { return isFault[*types.ManagedObjectNotFound](err) }

// isNotAuthenticated reports whether a call failed because the session has ended. The server reports that for each
// property that was to be retrieved, or as a fault.
func isNotAuthenticated(err error, res soap.HasFault) bool {
	if err != nil {
		return isFault[*types.NotAuthenticated](err)
	}
	body, ok := res.(*methods.RetrievePropertiesExBody)
	if !ok || body.Res == nil || body.Res.Returnval == nil {
		return false
	}
	for _, o := range body.Res.Returnval.Objects {
		for _, p := range o.MissingSet {
			if _, ended := p.Fault.Fault.(*types.NotAuthenticated); ended {
				return true
			}
		}
	}
	return false
}

// isConnectionError reports whether the connection failed before the server answered.
func isConnectionError(err error) bool {
	if err == nil || faultOf(err) != nil {
		return false
	}
	_, network := errors.AsType[*net.OpError](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func unavailable(err error, format string, args ...any) *vm.Error {
	return &vm.Error{Code: vm.CodeHypervisorUnavailable, Message: fmt.Sprintf(format, args...), Err: err}
}

// explain returns the client's error for a failure to connect or to log in.
func (s *session) explain(err error) error {
	if _, ok := errors.AsType[*vm.Error](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	at := s.opts.URL
	if isFault[*types.InvalidLogin](err) {
		return unavailable(err, "%s refuses the user %q or its password; check -vsphere-username and -vsphere-password-file", at, s.opts.Username)
	}
	if fault := faultOf(err); fault != nil {
		return s.explainFault("logging in to "+at, err)
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return unavailable(err, "the name %q of -vsphere-url cannot be resolved: %v", e.Name, e)
	}
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, untrusted := errors.AsType[x509.UnknownAuthorityError](err)
	_, wrongName := errors.AsType[x509.HostnameError](err)
	if unverified || untrusted || wrongName || strings.Contains(err.Error(), "thumbprint does not match") {
		return unavailable(err, "the certificate of %s is not trusted: %v; set -vsphere-ca-file to its authority, or -vsphere-thumbprint to its thumbprint", at, cause(err))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unavailable(err, "%s has not answered for %v", at, min(loginTimeout, s.opts.CallTimeout))
	}
	return unavailable(err, "%s cannot be reached: %v", at, cause(err))
}

// cause returns an error without the URL that Go's HTTP client puts before it.
func cause(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// explainFault returns the client's error for a failure of what was tried. Errors that are not the server's faults, and
// those of a context, are returned with what was tried.
func (s *session) explainFault(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*vm.Error](err); ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	e := &vm.Error{Code: vm.CodeHypervisor, Err: err}
	switch fault := faultOf(err).(type) {
	case nil:
		if isConnectionError(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return unavailable(err, "%s: %s cannot be reached: %v", what, s.opts.URL, cause(err))
		}
		return fmt.Errorf("%s: %w", what, err)
	case types.BaseNoPermission:
		p := fault.GetNoPermission()
		on := ""
		if p.Object != nil {
			on = " on " + p.Object.String()
		}
		e.Message = fmt.Sprintf("%s: the user %q lacks the privilege %s%s; add it to the user's role (vm/vsphere/README.md lists all)", what, s.opts.Username, p.PrivilegeId, on)
	case *types.NoDiskSpace:
		e.Code, e.Message = vm.CodeDiskFull, fmt.Sprintf("%s: the datastore %q is full; free space on it, or remove machines and images", what, fault.Datastore)
	case *types.InsufficientStorageSpace:
		e.Code, e.Message = vm.CodeDiskFull, what+": the datastore is full; free space on it, or remove machines and images"
	case types.BaseInsufficientResourcesFault:
		e.Code, e.Message = vm.CodeNoCapacity, fmt.Sprintf("%s: no host has enough resources (%s); remove machines, or add hosts to the cluster", what, faultName(fault.(types.BaseMethodFault)))
	default:
		e.Message = fmt.Sprintf("%s: vSphere reports %s", what, faultText(err))
	}
	return e
}

// faultText returns the name of a fault and its message.
func faultText(err error) string {
	name := faultName(faultOf(err))
	message := strings.TrimPrefix(err.Error(), "ServerFaultCode: ")
	if message == "" || strings.HasSuffix(message, name) {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, message)
}
