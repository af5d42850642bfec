// Package harness is what end-to-end tests share: the built daemon, started
// and stopped as an operator does, an image server, a receiver of callbacks,
// and the checks that hold for every test. Among them: nothing is left behind,
// and a failure shows every log.
//
// A package that uses it calls [Main] from its TestMain. As root on Linux, or with
// sudo, its tests then run as root with a network and mounts of their own.
package harness

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm/vmtest/e2e"
)

// Patience is how long any wait of a test lasts before the test gives up. It
// guards against hanging and measures nothing: what takes a second on an idle
// host may take a minute on one that is busy and emulates.
const Patience = 3 * time.Minute

// prebuilt names the environment variable with the folder of programs that
// make has built for all packages. Without it, each package builds its own.
const prebuilt = "OSX_BUILDER_TEST_PROGRAMS"

// programs is a temporary folder for what this process builds.
var programs string

// Main runs a package's tests and ends the process.
func Main(m *testing.M) {
	e2e.Launch()
	flag.Parse()
	if _, err := e2e.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "osxb"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	if err := os.Chmod(programs, 0o711); err != nil { // daemons of other users run from it
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Binary returns the path of the daemon, with the race detector and the VIX
// driver in it.
func Binary(t testing.TB) string {
	t.Helper()
	return program(t, "osx-builder", ".", "-race", "-tags", "vix")
}

// PlainBinary returns the path of the daemon as go build makes it: without the
// race detector and without VIX support.
func PlainBinary(t testing.TB) string {
	t.Helper()
	return program(t, "osx-builder-plain", ".")
}

// MemoryDaemon returns the path of the daemon whose machines are files, with
// the race detector in it.
func MemoryDaemon(t testing.TB) string {
	t.Helper()
	return program(t, "memory-daemon", "./vm/vmtest/daemon", "-race")
}

// PlainMemoryDaemon is [MemoryDaemon] without the race detector.
func PlainMemoryDaemon(t testing.TB) string {
	t.Helper()
	return program(t, "memory-daemon-plain", "./vm/vmtest/daemon")
}

// building makes sure that a program is built once.
var building sync.Mutex

// program returns the path of a program: the one that make has built, or one
// that is built now.
func program(t testing.TB, name, pkg string, flags ...string) string {
	t.Helper()
	if dir := os.Getenv(prebuilt); dir != "" {
		return Need(t, filepath.Join(dir, name))
	}
	building.Lock()
	defer building.Unlock()
	path := filepath.Join(programs, name)
	if _, err := os.Stat(path); err != nil {
		build(t, path, pkg, flags...)
	}
	return path
}

// build builds a program as make does, but for the flags.
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

// Without skips the test because something is missing. In CI it fails.
func Without(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Need returns the path of a file that make test has built. A test that lacks
// it is skipped, and fails in CI.
func Need(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Without(t, fmt.Sprintf("%v; make test builds it", err))
	}
	return path
}

// BuildDir returns the folder with what make builds: guest images above all.
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

// EnvInt returns the number in an environment variable, or standard if it is
// not set.
func EnvInt(t testing.TB, name string, standard int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}
