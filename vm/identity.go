package vm

import (
	"context"
	"fmt"
	"time"
)

// Identity is what happens to the identity that a machine's guest shares with others: its machine-id, host name and SSH
// host keys come from the image and, if the machine starts from memory, so do its network card and address.
type Identity string

// IdentityRenew gives the guest an identity of its own before the machine is ready.
const IdentityRenew Identity = "renew"

// IdentityRenewer is an optional interface of drivers that can give a guest an identity of its own. The machine runs,
// and its tools have answered. When RenewIdentity returns nil, the guest has a machine-id, a host name and SSH host keys
// that no other machine has, and has written them to its disk. An error that wraps no *Error means that the guest did
// not do that. The Manager calls it like Start, not beside another call that changes the machine. It may be repeated
// after an interruption at any point.
type IdentityRenewer interface {
	RenewIdentity(ctx context.Context, m Machine) error
}

// parseIdentity returns the identity as a spec has it.
func parseIdentity(i Identity) (Identity, error) {
	if i != "" && i != IdentityRenew {
		return "", fieldError("identity", fmt.Sprintf("%q", i), "renew, or absent")
	}
	return i, nil
}

// checkIdentity returns an error if the hypervisor cannot do what the request asks for.
func (o *Options) checkIdentity(i Identity) error {
	if _, ok := o.Driver.(IdentityRenewer); ok || i == "" {
		return nil
	}
	return &Error{
		Code: CodeInvalidField, Field: "identity",
		Message: fmt.Sprintf("identity is %q; the hypervisor %s cannot do that, QEMU can (-driver qemu)", i, o.Hypervisor),
	}
}

// renewIdentity gives the guest an identity of its own if the request asks for it.
func (c *creation) renewIdentity(ctx context.Context, vm Machine) error {
	if c.record.Spec.Identity == "" {
		return nil
	}
	o := &c.vms.opts
	if err := o.checkIdentity(c.record.Spec.Identity); err != nil {
		return err // the settings have changed since the request
	}
	limit := c.record.Spec.toolsTimeout()
	end := c.poll(ctx, vm, limit, func(_ context.Context, st Status, err error) bool { return err == nil && st.Tools == ToolsRunning })
	if end == errTooLong {
		return &Error{
			Code: CodeIdentity, Console: c.consoleEnd(ctx, vm),
			Message: fmt.Sprintf("the guest's identity was not renewed: its qemu-guest-agent did not answer within %s; install it in the image, "+
				"wait longer with tools_init_timeout, or leave identity out", readable(limit)),
		}
	}
	if end != nil {
		return end
	}
	began := time.Now()
	err := o.Driver.(IdentityRenewer).RenewIdentity(ctx, vm)
	if err == nil {
		c.log.Info("the guest has an identity of its own", "after", time.Since(began).Round(time.Millisecond))
		return nil
	}
	if ctx.Err() != nil || asError(err) != nil {
		return err
	}
	if st, inspecting := c.inspect(ctx, vm); inspecting == nil {
		if failed := hasFailed(st); failed != nil {
			return failed
		}
	}
	return &Error{
		Code: CodeIdentity, Console: c.consoleEnd(ctx, vm), Err: err,
		Message: fmt.Sprintf("the guest's identity was not renewed: %v; identity needs a Linux guest whose agent may run programs (guest-exec)", err),
	}
}
