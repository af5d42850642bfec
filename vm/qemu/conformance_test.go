package qemu_test

import (
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// The driver keeps every promise of vm.Driver, with a real guest.
func TestConformance(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	vmtest.TestDriver(t, vmtest.Harness{
		Open: func(t *testing.T) vm.Driver {
			d, err := qemu.Open(options(r.data))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Errorf("closing the driver: %v", err)
				}
			})
			return d
		},
		Kill: func(t *testing.T, m vm.Machine) { signal(t, pidOf(t, m), syscall.SIGSEGV) },
		Gold: r.tinyvm(), GuestOS: "other5xlinux-64", Limit: harness.Timeout, Parallel: true,
	})
}
