// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/mo"

	"osx-builder/vm"
	"osx-builder/vm/cloudinit"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
)

// What the guest configures itself with is in the machine's settings, on a vCenter and on an ESXi, and not in those of a
// machine without it.
func TestGuestConfig(t *testing.T) {
	for name, o := range map[string]vcenter.Options{"vCenter": {}, "ESXi": {ESX: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, o)
			d := b.open(t)
			m, plain := b.machine(), b.machine()
			m.Guest = &vm.GuestConfig{Hostname: "web", UserData: "#!/bin/sh\n", SSHAuthorizedKeys: []string{"ssh-ed25519 AAAA"}}
			want := make(map[string]string)
			for _, s := range cloudinit.GuestInfo(m) {
				want[s.Key] = s.Value
			}
			for machine, want := range map[*vm.Machine]map[string]string{&m: want, &plain: {}} {
				harness.Must(t, d.Clone(ctx(t), *machine, b.gold()))
				got := make(map[string]string)
				b.server.Change("osxb-"+machine.ID, func(v *mo.VirtualMachine) {
					for _, option := range v.Config.ExtraConfig {
						if o := option.GetOptionValue(); strings.HasPrefix(o.Key, "guestinfo.") && strings.Contains(o.Key, "data") {
							got[o.Key], _ = o.Value.(string)
						}
					}
				})
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				harness.Must(t, d.Destroy(ctx(t), *machine))
			}
		})
	}
}
