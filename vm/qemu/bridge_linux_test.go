package qemu_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
)

const ownNamespace = "OSXB_TEST_OWN_NAMESPACE"

// A real guest on the bridge: its address answers, and nothing of it is left.
// The test runs itself anew in a network namespace of its own, so that the
// host's network stays as it is.
func TestGuestOnBridge(t *testing.T) {
	needQEMU(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test makes a network namespace and needs root")
	}
	if os.Getenv(ownNamespace) == "" {
		again := exec.Command(os.Args[0], "-test.run=^TestGuestOnBridge$", "-test.v")
		again.Env = append(os.Environ(), ownNamespace+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := again.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s", out)
		}
		return
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		t.Fatal(err)
	}

	r := newRig(t)
	o := options(r.data)
	o.Network = "bridge"
	if r.Driver, err = qemu.Open(o); err != nil {
		t.Fatal(err)
	}
	m := r.machine()
	m.Memory = 256
	st, page := r.boots(m, func(st vm.Status) string { return "http://" + st.IP + "/" })
	if !strings.Contains(page, st.MAC) || st.Forwards != nil {
		t.Errorf("got %+v and page %q, want no forwards and the MAC address on the page", st, page)
	}
	if err := r.Destroy(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range left {
		if i.Name != "lo" {
			t.Errorf("network device %s is left", i.Name)
		}
	}
}
