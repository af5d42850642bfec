package network_test

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"osx-builder/vm/vmtest/e2e"
)

// The network between the host and a namespace that stands for the internet.
const (
	hostOutside = "198.51.100.1"
	internetIP  = "198.51.100.2"
)

// Waits of tests. What must come is awaited for long, so that it comes on a
// busy machine too, and what must not come for a moment only.
const (
	patience = time.Minute
	moment   = 400 * time.Millisecond
)

// TestMain runs the tests in a process that has a network and mounts of its
// own, in which each test makes a host of its own.
func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := e2e.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The tests wait most of the time, so more run side by side than cores are.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("8"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

// newHost gives the test's goroutine a host of its own: whatever the goroutine
// does happens in a network namespace, a /run and with a resolver that no
// other test has. Goroutines that it starts are not on that host
// until they enter it.
func newHost(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); errors.Is(err, unix.EPERM) {
		without(t, "this test needs root, or sudo without a password")
	} else if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"dnsmasq", "nft", "ip", "busybox"} {
		if _, err := exec.LookPath(tool); err != nil {
			without(t, err.Error())
		}
	}
	if err := e2e.InitNamespaces(); err != nil {
		t.Fatal(err)
	}
	if err := initResolver(); err != nil {
		t.Fatal(err)
	}
}

// without skips the test for want of something, but never in CI.
func without(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// initResolver puts a resolv.conf of the test's own in the place of the
// host's, wherever that is. If it is a link into /run, it leads nowhere now.
func initResolver() error {
	path := "/etc/resolv.conf"
	for {
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	own, text := "/run/own-resolv.conf", []byte("nameserver "+internetIP+"\n")
	if err := os.WriteFile(own, text, 0o644); err != nil {
		return err
	}
	if strings.HasPrefix(path, "/run/") {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, text, 0o644)
	}
	return unix.Mount(own, path, "", unix.MS_BIND, "")
}

// namespaces are those of a test's host.
type namespaces struct{ network, mounts *os.File }

// here returns the namespaces of the test's goroutine.
func here(t *testing.T) namespaces {
	t.Helper()
	open := func(name string) *os.File {
		f, err := os.Open("/proc/thread-self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	return namespaces{open("net"), open("mnt")}
}

// enter puts the calling goroutine on the host, for good.
func (n namespaces) enter() error {
	runtime.LockOSThread() // as above
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return errors.Join(
		unix.Setns(int(n.mounts.Fd()), unix.CLONE_NEWNS),
		unix.Setns(int(n.network.Fd()), unix.CLONE_NEWNET))
}

// sub is t.Run on the test's host.
func sub(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	host := here(t)
	t.Run(name, func(t *testing.T) {
		if err := host.enter(); err != nil {
			t.Fatal(err)
		}
		f(t)
	})
}

// space is a network namespace.
type space struct{ e2e.Namespace }

// newSpace makes a further network namespace, which ends with the test.
func newSpace(t *testing.T) space {
	t.Helper()
	made, err := e2e.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	s := space{made}
	t.Cleanup(func() { s.Close() })
	return s
}

// thisSpace returns the namespace of the test's host.
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

// listen accepts TCP connections in the namespace and sends each client its own address.
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

// host runs a command on the test's host.
func host(t *testing.T, name string, args ...string) string {
	t.Helper()
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
