package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
)

// isolated marks the process that Isolate started.
const isolated = "OSX_BUILDER_E2E_ISOLATED"

// Isolate runs this program again in a network namespace of its own, where it
// is root, so that the host's network stays untouched; the process that asked
// ends with the other's exit status. In the namespace, or for want of root, it
// returns: the first result tells which.
func Isolate() (bool, error) {
	if os.Geteuid() != 0 {
		return false, nil
	}
	if os.Getenv(isolated) != "" {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return false, fmt.Errorf("finding the loopback device: %w", err)
		}
		return true, netlink.LinkSetUp(lo)
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the death signal is that of this thread
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("making a network namespace: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	_ = cmd.Wait() // its exit status tells
	os.Exit(cmd.ProcessState.ExitCode())
	return false, nil
}
