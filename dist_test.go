package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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

// The Homebrew formula has the archive of each system with its checksum. Without one of them there is no formula.
func TestFormula(t *testing.T) {
	sums := filepath.Join(t.TempDir(), "SHA256SUMS")
	var lines []string
	for i, target := range []string{"darwin-amd64", "darwin-arm64", "linux-amd64", "linux-arm64"} {
		lines = append(lines, fmt.Sprintf("%064d  osx-builder-v1.2.3-%s-vix.tar.gz", i, target))
	}
	formula := func(lines []string) (string, error) {
		harness.Must(t, os.WriteFile(sums, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		out, err := exec.Command(".ci/formula", "v1.2.3", "https://example.com/releases/download/v1.2.3", sums).Output()
		return string(out), err
	}
	text, err := formula(lines)
	harness.Must(t, err)
	for i, target := range []string{"darwin-amd64", "darwin-arm64", "linux-amd64", "linux-arm64"} {
		want := fmt.Sprintf("url \"https://example.com/releases/download/v1.2.3/osx-builder-v1.2.3-%s-vix.tar.gz\"\n      sha256 \"%064d\"", target, i)
		if !strings.Contains(text, want) {
			t.Errorf("got\n%s\nwant %q in it", text, want)
		}
	}
	for i := range lines {
		if text, err := formula(slices.Delete(slices.Clone(lines), i, i+1)); err == nil {
			t.Errorf("without %q: got the formula\n%s", lines[i], text)
		}
	}
}
