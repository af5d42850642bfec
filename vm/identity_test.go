package vm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// renewingDriver lets its guests renew their identity.
type renewingDriver struct {
	*vmtest.Driver
	renew func(vm.Machine) error
}

func (d *renewingDriver) RenewIdentity(_ context.Context, m vm.Machine) error { return d.renew(m) }

// A machine that is to have an identity of its own is ready only once it has it, and never without.
func TestRenewIdentity(t *testing.T) {
	for name, tt := range map[string]struct {
		renew   func(*vmtest.Driver, vm.Machine) error
		silent  bool
		code    vm.Code // "" if the machine gets ready
		message string
	}{
		"renewed": {renew: func(*vmtest.Driver, vm.Machine) error { return nil }},
		"refused": {
			renew: func(*vmtest.Driver, vm.Machine) error { return errors.New("guest-exec is disabled") },
			code:  vm.CodeIdentity, message: "guest-exec is disabled",
		},
		"no agent": {silent: true, code: vm.CodeIdentity, message: "tools_init_timeout"},
		"shut down": {
			renew: func(d *vmtest.Driver, m vm.Machine) error {
				return errors.Join(d.SetPower(m, vm.PoweredOff), errors.New("no answer"))
			},
			code: vm.CodeGuestStopped, message: "powered itself off",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.driver.Silent = tt.silent
			calls := 0
			h.options = func(o *vm.Options) {
				o.Driver = &renewingDriver{h.driver, func(m vm.Machine) error {
					calls++
					if v, err := h.vms.Get(context.Background(), m.ID); err != nil || v.Phase != vm.Waiting {
						t.Errorf("got phase %q (%v) while the identity is renewed, want waiting", v.Phase, err)
					}
					return tt.renew(h.driver, m)
				}}
			}
			q := h.request()
			q.Identity, q.ToolsInitTimeout = vm.IdentityRenew, vm.Timeout(time.Second)
			v := h.wait(h.open().create(q).ID)
			if v.Identity != vm.IdentityRenew {
				t.Errorf("got identity %q in the document, want renew", v.Identity)
			}
			if tt.code == "" {
				if v.Phase != vm.Ready || calls != 1 {
					t.Errorf("got phase %s, error %v, after %d calls, want ready after one", v.Phase, v.Error, calls)
				}
				return
			}
			if v.Error == nil || v.Error.Code != tt.code || !strings.Contains(v.Error.Message, tt.message) {
				t.Errorf("got error %v, want %s with %q", v.Error, tt.code, tt.message)
			}
			if _, err := os.Stat(filepath.Join(h.dir, "vms", v.ID)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the machine's folder: %v, want none", err)
			}
		})
	}
}

// A request for an identity that the hypervisor cannot renew is refused.
func TestRenewIdentityUnsupported(t *testing.T) {
	h := newHarness(t)
	h.open()
	for _, identity := range []vm.Identity{vm.IdentityRenew, "new"} {
		q := h.request()
		q.Identity = identity
		_, err := h.vms.Create(t.Context(), q, "")
		wantCode(t, string(identity), err, vm.CodeInvalidField)
	}
}
