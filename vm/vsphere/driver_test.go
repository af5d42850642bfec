package vsphere_test

import (
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
)

// The driver keeps the contract on a vCenter and on a stand-alone ESXi.
func TestDriver(t *testing.T) {
	for name, o := range map[string]vcenter.Options{"vCenter": {}, "ESXi": {ESX: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, o)
			vmtest.TestDriver(t, vmtest.Harness{
				Open: func(t *testing.T) vm.Driver { return b.open(t) },
				Gold: b.gold(), GuestOS: "debian11-64", Limit: harness.Timeout,
			})
			if left := b.machines(); len(left) > 0 {
				t.Errorf("the tests left %v", left)
			}
		})
	}
}
