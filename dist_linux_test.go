package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// What make dist hands out has the same bytes each time; the archive runs
// where there is nothing else; the Debian package installs, runs a machine
// under its unit's command, and is removed without a trace.
func TestDist(t *testing.T) {
	need(t, filepath.Join("build", tinyvm))
	nfpm, err := filepath.Abs(need(t, filepath.Join("build", "nfpm")))
	must(t, err)
	if os.Geteuid() != 0 {
		t.Skip("only root can install a package in namespaces of its own")
	}
	cmd := exec.Command(".ci/dist-check", t.TempDir(), "v0.1.0-test", "linux/"+runtime.GOARCH)
	cmd.Env = append(os.Environ(), "NFPM="+nfpm)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
