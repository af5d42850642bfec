package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"osx-builder/vm/vmtest/harness"
)

// Two builds of make dist have the same bytes. The archive's program runs without any
// other file. The Debian package can be installed, its unit's command runs a machine,
// and nothing is left after the package is removed.
func TestDist(t *testing.T) {
	harness.Need(t, filepath.Join("build", harness.TinyVM))
	nfpm, err := filepath.Abs(harness.Need(t, filepath.Join("build", "nfpm")))
	harness.Must(t, err)
	if os.Geteuid() != 0 {
		harness.Without(t, "this test installs a package in its own namespaces and needs root")
	}
	cmd := exec.Command(".ci/dist-check", t.TempDir(), "v0.1.0-test", "linux/"+runtime.GOARCH)
	cmd.Env = append(os.Environ(), "NFPM="+nfpm)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
