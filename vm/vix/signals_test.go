//go:build vix && cgo && !windows

package vix_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vix"
)

// causeFault is what the process of TestSignals does: it opens a driver, recovers from a fault, interrupts a goroutine
// and waits for SIGTERM.
func causeFault(library string) {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	dir, err := os.MkdirTemp("", "vix")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	d, err := vix.Open(vix.Options{Dir: dir, Library: library})
	if err != nil {
		panic(err)
	}
	defer d.Close()
	func() {
		defer func() { fmt.Println("recovered:", recover()) }()
		var m *vm.Machine
		m.CPUs = 1
	}()
	go func() {
		for n := 0; ; n++ { // until the runtime interrupts it
			_ = n
		}
	}()
	runtime.GC() // interrupts all goroutines, by SIGURG
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		panic(err)
	}
	fmt.Println(<-terminate)
}

// A library that installs signal handlers does not break the daemon.
func TestSignals(t *testing.T) {
	h := newHarness(t)
	h.set("signals", "")
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "OSXB_TEST_SIGNALS="+double, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	const want = "recovered: runtime error: invalid memory address or nil pointer dereference\nterminated\n"
	if err != nil || string(out) != want {
		t.Errorf("got %v and %q, want %q", err, out, want)
	}
}
