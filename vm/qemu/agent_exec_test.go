package qemu_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/qemu/qmp"
	"osx-builder/vm/vmtest/harness"
)

// drivers are the open drivers and those that were closed, by the folder of their machines.
var drivers struct {
	sync.Mutex
	of map[string][]*qemu.Driver
}

// openDriver opens a driver that lets guestRun speak with the agents of its machines.
func openDriver(o qemu.Options) (*qemu.Driver, error) {
	d, err := qemu.Open(o)
	if err != nil {
		return nil, err
	}
	drivers.Lock()
	defer drivers.Unlock()
	if drivers.of == nil {
		drivers.of = make(map[string][]*qemu.Driver)
	}
	drivers.of[o.MachinesDir] = append(drivers.of[o.MachinesDir], d)
	return d, nil
}

// releaseAgent makes drivers give up their connections to the agent of the machine in dir, again and again until it is
// called off.
func releaseAgent(dir string) (callOff func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause := time.Duration(0); ; pause = 50 * time.Millisecond {
			select {
			case <-done:
				return
			case <-time.After(pause):
			}
			drivers.Lock()
			for _, d := range drivers.of[filepath.Dir(dir)] {
				d.ReleaseAgent(dir)
			}
			drivers.Unlock()
		}
	})
	return func() { close(done); wg.Wait() }
}

// guestRun runs a command in a guest, by its agent, and returns what it wrote
// and whether it ended well.
func guestRun(t *testing.T, m vm.Machine, argv ...string) (out string, ok bool) {
	t.Helper()
	r, err := guestExec(t, m, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Output), r.Code == 0
}

// guestExec is guestRun for a command that may end its guest, and so its agent.
func guestExec(t *testing.T, m vm.Machine, argv ...string) (qmp.Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Timeout)
	defer cancel()
	defer releaseAgent(m.Dir)()
	var agents qmp.Agents
	defer agents.Close()
	return agents.Run(ctx, filepath.Join(m.Dir, "qga"), qmp.Exec{Path: argv[0], Args: argv[1:]})
}

// guestGet fetches a page from within the guest, and says whether there was an
// answer.
func guestGet(t *testing.T, m vm.Machine, address string) (page string, ok bool) {
	t.Helper()
	return guestFetch(t, m, address, 2*time.Second)
}

// guestFetch is guestGet with the longest time without a byte. An answer that is cut off by it counts as one.
func guestFetch(t *testing.T, m vm.Machine, address string, patience time.Duration) (page string, ok bool) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	// The wget of a static busybox does not work without the C library's files.
	page, _ = guestRun(t, m, "/bin/sh", "-c", `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w "$0" "$1" "$2"`, fmt.Sprint(patience.Seconds()), host, port)
	return page, page != ""
}

// guestAwait fetches a page that the guest is to get, and asks again until it
// does.
func guestAwait(t *testing.T, m vm.Machine, address string) (page string) {
	t.Helper()
	until(t, harness.Timeout, "an answer to the guest from "+address, func() (ok bool) {
		page, ok = guestFetch(t, m, address, 20*time.Second)
		return ok
	})
	return page
}
