// The simulator of vCenter has data races of its own.
//go:build !race

package vsphere_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"osx-builder/config"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
	"osx-builder/vm/vmtest/vcenter"
	"osx-builder/vm/vsphere"
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
	if url := os.Getenv("OSX_BUILDER_TEST_VSPHERE_URL"); url != "" {
		t.Run("a real server", func(t *testing.T) { testRealServer(t, url) })
	}
}

// testRealServer runs the contract's suite on the vCenter or ESXi that the environment names, with an image whose guest
// has VMware Tools.
func testRealServer(t *testing.T, url string) {
	c, err := config.Load([]string{"-driver", "vsphere", "-vsphere-url", url}, os.Getenv)
	harness.Must(t, err)
	gold := os.Getenv("OSX_BUILDER_TEST_VSPHERE_GOLD") // in a folder like gold/sha256-0123
	dir := t.TempDir()
	open := func(t *testing.T) vm.Driver {
		d, err := vsphere.Open(vsphere.Options{
			Settings: vsphere.Settings(c.VSphere), Dir: dir, Machines: filepath.Join(dir, "vms"), Gold: filepath.Dir(filepath.Dir(gold)),
		})
		harness.Must(t, err)
		t.Cleanup(func() { d.Close() })
		return d
	}
	vmtest.TestDriver(t, vmtest.Harness{
		Open: open, Gold: gold, GuestOS: os.Getenv("OSX_BUILDER_TEST_VSPHERE_GUESTOS"), Limit: 15 * time.Minute,
	})
	harness.Must(t, open(t).(*vsphere.Driver).RemoveImage(t.Context(), filepath.Base(filepath.Dir(gold))))
}
