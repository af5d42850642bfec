// Package harness is what end-to-end tests share. It starts and stops the built
// daemon as an operator does, serves images and receives callbacks. At the end
// of every test it checks that nothing is left behind, and if the test failed
// it shows every log.
//
// A package that uses it calls [Main] from its TestMain. As root on Linux, or with
// sudo, its tests then run as root with a network and mounts of their own.
package harness

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm/vmtest/e2e"
)

// Timeout bounds every wait of a test. It only ends tests that hang: a step that
// takes a second on an idle host may take a minute on a busy host that emulates
// the guest's processor.
const Timeout = 5 * time.Minute

// programsEnv is the environment variable with the folder of the programs that
// make builds for all packages. If it is not set, each package builds its own.
const programsEnv = "OSX_BUILDER_TEST_PROGRAMS"

// programsDir is a temporary folder for the programs that this process builds.
var programsDir string

// Main runs a package's tests and ends the process.
func Main(m *testing.M) {
	e2e.ExecFiltered()
	flag.Parse()
	if _, err := e2e.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if programsDir, err = os.MkdirTemp("", "osxb"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programsDir)
	if err := os.Chmod(programsDir, 0o711); err != nil { // daemons of other users run from it
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Binary returns the path of the daemon with the race detector and the VIX
// driver.
func Binary(t testing.TB) string {
	t.Helper()
	return program(t, "osx-builder", ".", "-race", "-tags", "vix")
}

// PlainBinary returns the path of the daemon as go build builds it: without the
// race detector and without VIX support.
func PlainBinary(t testing.TB) string {
	t.Helper()
	return program(t, "osx-builder-plain", ".")
}

// MemoryDaemon returns the path of the daemon with the in-memory driver and the
// race detector.
func MemoryDaemon(t testing.TB) string {
	t.Helper()
	return program(t, "memory-daemon", "./vm/vmtest/daemon", "-race")
}

// PlainMemoryDaemon is [MemoryDaemon] without the race detector.
func PlainMemoryDaemon(t testing.TB) string {
	t.Helper()
	return program(t, "memory-daemon-plain", "./vm/vmtest/daemon")
}

// VCenter returns the path of the simulated vCenter.
func VCenter(t testing.TB) string {
	t.Helper()
	return program(t, "vcsim", "./vm/vmtest/vcenter/vcsim")
}

// buildMutex ensures that a program is built once.
var buildMutex sync.Mutex

// program returns the path of the program that make built. If make did not build
// the programs, it builds this one.
func program(t testing.TB, name, pkg string, flags ...string) string {
	t.Helper()
	if dir := os.Getenv(programsEnv); dir != "" {
		return Need(t, filepath.Join(dir, name))
	}
	buildMutex.Lock()
	defer buildMutex.Unlock()
	path := filepath.Join(programsDir, name)
	if _, err := os.Stat(path); err != nil {
		build(t, path, pkg, flags...)
	}
	return path
}

// build builds a program as make does, with these flags.
func build(t testing.TB, path, pkg string, flags ...string) {
	t.Helper()
	include := Path(t, "vm/vix/include")
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), pkg)...)
	cmd.Dir = Path(t, ".")
	cmd.Env = os.Environ()
	if c := os.Getenv("CGO_CFLAGS"); !strings.Contains(c, include) {
		cmd.Env = append(cmd.Env, fmt.Sprintf("CGO_CFLAGS=%s %q", c, "-I"+include))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, out)
	}
}

// Path returns the absolute path of a file of the repository.
func Path(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	Must(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, name)
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("the test does not run in the repository: no folder above has a go.mod")
		}
		dir = filepath.Dir(dir)
	}
}

// Must fails the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Without skips the test because something is missing. In CI the test fails.
func Without(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Need returns path if the file exists, and otherwise skips the test by
// [Without]. The file is one that make test builds.
func Need(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Without(t, fmt.Sprintf("%v; make test builds it", err))
	}
	return path
}

// BuildDir returns the folder of the files that make builds, such as guest
// images.
func BuildDir(t testing.TB) string {
	t.Helper()
	return Path(t, "build")
}

// ReadFile returns a file's text.
func ReadFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	Must(t, err)
	return string(b)
}

// FilesWith returns the paths of the files in dir that contain text, without those in folders that
// have one of the names except. It starts no program, whose arguments would show the text in the
// list of processes.
func FilesWith(t testing.TB, dir, text string, except ...string) (found []string) {
	t.Helper()
	Must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
		case e.IsDir() && slices.Contains(except, e.Name()):
			return fs.SkipDir
		case e.Type().IsRegular():
			var content []byte
			if content, err = os.ReadFile(path); strings.Contains(string(content), text) {
				found = append(found, path)
			}
		}
		if path != dir && errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
			return nil
		}
		return err
	}))
	return found
}

// EnvInt returns the number in an environment variable, or def if it is not set.
func EnvInt(t testing.TB, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}
