//go:build vix && cgo && !windows

package vix_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vix"
)

// causeFault is what the process of TestSignals does: it starts a machine, recovers from a fault, interrupts a goroutine
// and waits for SIGTERM.
func causeFault(library string) {
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	dir, err := os.MkdirTemp("", "vix")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	gold := os.Getenv("OSXB_TEST_GOLD")
	d, err := vix.Open(vix.Options{Dir: filepath.Join(dir, "bases"), Gold: filepath.Dir(filepath.Dir(gold)), Library: library})
	if err != nil {
		panic(err)
	}
	defer d.Close()
	m := vm.Machine{ID: "m", Dir: filepath.Join(dir, "m"), CPUs: 1, Memory: 256, Network: vm.NAT}
	if err := errors.Join(d.Clone(context.Background(), m, gold), d.Start(context.Background(), m)); err != nil {
		panic(err)
	}
	defer func() { _ = d.Destroy(context.Background(), m) }()
	func() {
		defer func() { fmt.Println("recovered:", recover()) }()
		var none *vm.Machine
		none.CPUs = 1
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

// A library that installs signal handlers, at any time, does not break the daemon.
func TestSignals(t *testing.T) {
	for _, function := range []string{"VixHost_Connect", "VixHost_OpenVM", "VixVM_Clone", "VixVM_PowerOn"} {
		t.Run(function, func(t *testing.T) {
			h := newHarness(t)
			h.set("signals", function)
			self, err := os.Executable()
			must(t, err)
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "OSXB_TEST_SIGNALS="+double, "OSXB_TEST_GOLD="+h.gold, "GORACE=atexit_sleep_ms=0",
				"GOGC=off") // a collection sends signals, also before the handlers are repaired
			out, err := cmd.CombinedOutput()
			const want = "recovered: runtime error: invalid memory address or nil pointer dereference\nterminated\n"
			if err != nil || string(out) != want {
				t.Errorf("got %v and %q, want %q", err, out, want)
			}
		})
	}
}
