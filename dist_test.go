package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"osx-builder/vm/vmtest/harness"
)

// What make dist hands out has the same bytes each time; the archive runs
// where there is nothing else; the Debian package installs, runs a machine
// under its unit's command, and is removed without a trace.
func TestDist(t *testing.T) {
	harness.Need(t, filepath.Join("build", harness.TinyVM))
	nfpm, err := filepath.Abs(harness.Need(t, filepath.Join("build", "nfpm")))
	harness.Must(t, err)
	if os.Geteuid() != 0 {
		t.Skip("only root can install a package in namespaces of its own")
	}
	cmd := exec.Command(".ci/dist-check", t.TempDir(), "v0.1.0-test", "linux/"+runtime.GOARCH)
	cmd.Env = append(os.Environ(), "NFPM="+nfpm)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
