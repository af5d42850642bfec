package vmtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

func TestDriverWithoutHypervisor(t *testing.T) {
	gold := filepath.Join(t.TempDir(), "a.vmx")
	if err := os.WriteFile(gold, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	vmtest.TestDriver(t, vmtest.Harness{
		Open: func(*testing.T) vm.Driver { return &vmtest.Driver{} },
		Kill: func(t *testing.T, m vm.Machine) {
			if err := (&vmtest.Driver{}).Kill(m, "it was killed"); err != nil {
				t.Fatal(err)
			}
		},
		Gold: gold, GuestOS: "other", Limit: harness.Timeout,
	})
}
