package main_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm/vmtest"
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

// The zip for Windows has the same bytes under another umask, and contains the program and the documents.
func TestWindowsZip(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	harness.Must(t, os.WriteFile(program, []byte("the program"), 0o600))
	var zips [2][]byte
	for i, umask := range []string{"022", "077"} {
		dir := t.TempDir()
		cmd := exec.Command("sh", "-c", "umask "+umask+` && exec .ci/windows-zip "$@"`, "sh", program, "osx-builder-v1", dir)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		zips[i] = []byte(harness.ReadFile(t, filepath.Join(dir, "osx-builder-v1.zip")))
	}
	if !bytes.Equal(zips[0], zips[1]) {
		t.Error("two zips differ")
	}
	r, err := zip.NewReader(bytes.NewReader(zips[0]), int64(len(zips[0])))
	harness.Must(t, err)
	for _, name := range []string{"osx-builder.exe", "doc/README.md", "doc/LICENSE", "doc/OPERATIONS.md", "doc/vm/vix/README.md"} {
		if info, err := fs.Stat(r, "osx-builder-v1/"+name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a compiler without Apple's SDK gets instead has each function that the program imports from Apple's libraries,
// except for libSystem, which such a compiler has.
func TestMacOSStubs(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-tags", "vix", "-f", `{{range .GoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}`, ".")
	cmd.Env = append(os.Environ(), "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=1")
	files, err := cmd.Output()
	harness.Must(t, err)
	found, imported := 0, regexp.MustCompile(`(?m)^//go:cgo_import_dynamic \S+ (\S+) +"(?:/\S+)?/([^"/]+)"`)
	for file := range strings.Lines(string(files)) {
		for _, match := range imported.FindAllStringSubmatch(harness.ReadFile(t, strings.TrimSpace(file)), -1) {
			function, library := match[1], strings.TrimSuffix(match[2], ".9.dylib")
			if library == "libSystem.B.dylib" {
				continue
			}
			found++
			stubs, err := filepath.Glob(".ci/macos-sdk/*/" + library + "*")
			harness.Must(t, err)
			stub := ".ci/macos-sdk/lib/" + library + ".tbd"
			if len(stubs) == 1 && filepath.Ext(stubs[0]) == ".framework" {
				stub = filepath.Join(stubs[0], library+".tbd")
			}
			if text, err := os.ReadFile(stub); err != nil || !strings.Contains(string(text), "- _"+function+"\n") {
				t.Errorf("%s imports %s: %s does not have it (%v)", strings.TrimSpace(file), function, stub, err)
			}
		}
	}
	if found == 0 {
		t.Error("found no imports")
	}
}

// A PREFIX or DESTDIR that begins with ~ would make a folder of that name: zsh
// and sh do not replace a ~ that follows a =.
func TestMakeRefusesTilde(t *testing.T) {
	for _, arg := range []string{"PREFIX=~/.local", "PREFIX=~", "DESTDIR=~/pkg"} {
		out, err := exec.Command("make", "-n", "install", arg).CombinedOutput()
		name, _, _ := strings.Cut(arg, "=")
		if err == nil || !strings.Contains(string(out), `as in `+name+`="$HOME/.local"`) {
			t.Errorf("make install %s: got %v, %s", arg, err, out)
		}
	}
	if out, err := exec.Command("make", "-n", "install", "PREFIX="+t.TempDir()).CombinedOutput(); err != nil {
		t.Errorf("make install: %v: %s", err, out)
	}
}

// The demo and the guest image do not need what only tests need, and make run does not install QEMU beside VMware.
func TestMakeInstallsOnlyWhatIsNeeded(t *testing.T) {
	for _, target := range []string{"demo", "image", "run"} {
		out, err := exec.Command("make", "-n", target).CombinedOutput()
		if err != nil {
			t.Errorf("make -n %s: %v: %s", target, err, out)
		}
		for _, name := range []string{"chromium", "npm"} {
			if strings.Contains(string(out), name) {
				t.Errorf("make %s installs %s", target, name)
			}
		}
	}
	for _, command := range []string{"vmrun", "other"} {
		dir := t.TempDir()
		vmtest.WriteProgram(t, filepath.Join(dir, command), "#!/bin/sh\n")
		cmd := exec.Command("make", "run-deps", "MAKE=echo deps")
		cmd.Env = append(os.Environ(), "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if needed := strings.Contains(string(out), "deps"); err != nil || needed == (command == "vmrun") {
			t.Errorf("with %s: got %v, %s", command, err, out)
		}
	}
}
