package network_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"osx-builder/vm/vmtest/e2e"
)

// inside is set in the environment of the process that runs the tests.
const inside = "NETWORK_TEST_INSIDE"

// The network between the host and a namespace that stands for the internet.
const (
	hostOutside = "198.51.100.1"
	internetIP  = "198.51.100.2"
)

// TestMain runs the tests in a process of its own that has a network and
// mounts of its own: nothing of the machine's is touched, and runs at once do
// not meet.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "furnishing the test's namespace:", err)
			os.Exit(1)
		}
		goleak.VerifyTestMain(m)
	}
	if why := missing(); why != "" {
		fmt.Fprintln(os.Stderr, "the tests of networks need", why)
		if os.Getenv("CI") != "" {
			os.Exit(1)
		}
		os.Exit(m.Run()) // each test that needs it skips itself
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "starting the tests in namespaces of their own:", err)
		os.Exit(1)
	}
}

// needHost skips the test where it would have to use the machine's own network.
func needHost(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skipf("networks cannot be tested here: this needs %s", missing())
	}
}

// missing says what the tests need and this machine has not.
func missing() string {
	if os.Geteuid() != 0 {
		return "root"
	}
	for _, tool := range []string{"dnsmasq", "nft", "ip", "busybox"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool
		}
	}
	return ""
}

// furnish gives the process's namespace a /run and a resolver of its own.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	resolv := "/run/resolv.conf"
	if err := os.WriteFile(resolv, []byte("nameserver "+internetIP+"\n"), 0o644); err != nil {
		return err
	}
	// Where the file is a link into /run, that is where it leads now.
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if err := unix.Mount(resolv, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// space is a network namespace.
type space struct{ e2e.Namespace }

// newSpace makes an empty network namespace, which ends with the test.
func newSpace(t *testing.T) space {
	t.Helper()
	needHost(t)
	made, err := e2e.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	s := space{made}
	t.Cleanup(func() { s.Close() })
	s.run(t, "ip", "link", "set", "lo", "up")
	return s
}

// thisSpace returns the namespace of the test itself.
func thisSpace(t *testing.T) space {
	t.Helper()
	ns, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return space{e2e.Namespace{NsHandle: ns}}
}

// run runs a command in the namespace.
func (s space) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := s.try(name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func (s space) try(name string, args ...string) (string, error) {
	var out []byte
	err := s.Do(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// listen accepts TCP connections in the namespace and tells each who it is.
func (s space) listen(t *testing.T, address string) {
	t.Helper()
	var l net.Listener
	if err := s.Do(func() (err error) { l, err = net.Listen("tcp4", address); return err }); err != nil {
		t.Fatal(err)
	}
	serve(t, l)
}

func serve(t *testing.T, l net.Listener) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprint(c, host)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// host runs a command in the namespace of the test itself.
func host(t *testing.T, name string, args ...string) string {
	t.Helper()
	needHost(t)
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// newInternet makes a namespace beyond the host's default route. It knows a
// way into every private network through the host, as an attacker nearby would.
func newInternet(t *testing.T) space {
	t.Helper()
	s := newSpace(t)
	out, in := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(s.NsHandle)}, "outside"
	out.Name = in
	if err := netlink.LinkAdd(out); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(out) })
	host(t, "ip", "addr", "add", hostOutside+"/24", "dev", in)
	host(t, "ip", "link", "set", in, "up")
	host(t, "ip", "route", "add", "default", "via", internetIP)
	s.run(t, "ip", "addr", "add", internetIP+"/24", "dev", "eth0")
	s.run(t, "ip", "link", "set", "eth0", "up")
	s.run(t, "ip", "route", "add", "10.0.0.0/8", "via", hostOutside)
	return s
}
