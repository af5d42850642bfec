package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolated marks a process that has a network and mounts of its own. Its value
// is the name of the test that has the process to itself, if there is one.
const isolated = "OSX_BUILDER_E2E_ISOLATED"

// Isolate runs this program again as root, with a network and mounts of its
// own, so that the host stays untouched and programs side by side do not meet;
// the process that asked ends with the other's exit status. In there it
// returns true. It returns false if the process neither is root nor becomes so
// by sudo without a password.
func Isolate() (bool, error) {
	if os.Getenv(isolated) != "" {
		return true, Furnish()
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := asRoot("-", self, os.Args[1:]...)
	if cmd == nil {
		return false, nil
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	runtime.LockOSThread() // the death signal is that of this thread
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("starting the tests in namespaces of their own: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			forward(cmd.Process, s.(syscall.Signal))
		}
	}()
	_ = cmd.Wait() // its exit status shows
	if err := giveBack(os.Getenv("GOCACHE")); err != nil {
		fmt.Fprintln(os.Stderr, "giving the files in Go's cache back to their owner:", err)
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return false, nil
}

// IsolateTest is [Isolate] for one test of a program: it runs the test again,
// and reports whether this is that run. Without root and sudo it skips the
// test, but never in CI.
func IsolateTest(t testing.TB) bool {
	t.Helper()
	if os.Getenv(isolated) == t.Name() {
		if err := Furnish(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := asRoot(t.Name(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+flag.Lookup("test.timeout").Value.String())
	if cmd == nil {
		const why = "this test needs root, or sudo without a password"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	runtime.LockOSThread() // as above
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

// asRoot returns a command that runs the program as root: in namespaces of its
// own, marked with the value of isolated, or, if that needs sudo, so that it
// asks again as root. Without sudo it is nil.
func asRoot(mark, program string, args ...string) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), quickExit, isolated+"="+mark)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		}
		return cmd
	}
	const keep = "-nHE" // no question; root's home; our environment
	if exec.Command("sudo", keep, "true").Run() != nil {
		return nil
	}
	again := []string{
		keep, "env", quickExit,
		"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin", // the user's, and root's programs
		"TMPDIR=" + os.TempDir(), // the linker that starts sudo drops it
		"GIT_OPTIONAL_LOCKS=0",   // git leaves files of the repository to the user
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOENV"} { // of the user's home
		if value, err := exec.Command("go", "env", name).Output(); err == nil {
			again = append(again, name+"="+strings.TrimSpace(string(value)))
		}
	}
	return exec.Command("sudo", append(append(again, program), args...)...)
}

// forward passes a signal on. A process of sudo's takes it from root alone.
func forward(p *os.Process, s syscall.Signal) {
	if err := p.Signal(s); errors.Is(err, os.ErrPermission) {
		_ = exec.Command("sudo", "-n", "kill", "-"+strconv.Itoa(int(s)), strconv.Itoa(p.Pid)).Run() // it may have ended
	}
}

// giveBack makes what root made in a folder the property of the user who became
// root by sudo, if the folder is.
func giveBack(dir string) error {
	owner, err := strconv.Atoi(os.Getenv("SUDO_UID"))
	if err != nil || os.Geteuid() != 0 || dir == "" {
		return nil
	}
	group, err := strconv.Atoi(os.Getenv("SUDO_GID"))
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil || int(st.Uid) != owner {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err == nil && st.Uid == 0 {
			err = os.Lchown(path, owner, group)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // others remove files of theirs meanwhile
		}
		return err
	})
}

// Furnish gives the calling thread's namespaces what the kernel gives those of
// a host that was just started, whatever the host has set: a loopback device
// that is up, no IPv4 forwarding, none of the settings of devices that new
// namespaces inherit, and an empty /run.
func Furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts from the host: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting an empty /run: %w", err)
	}
	return furnishNetwork()
}

// furnishNetwork does what Furnish does for the network.
func furnishNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback device: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing up the loopback device: %w", err)
	}
	for _, s := range []struct{ path, value string }{
		{"ipv4/ip_forward", "0"}, // first, as it changes others
		{"ipv4/conf/*/accept_local", "0"},
		{"ipv4/conf/*/accept_redirects", "1"},
		{"ipv4/conf/*/arp_accept", "0"},
		{"ipv4/conf/*/arp_announce", "0"},
		{"ipv4/conf/*/arp_filter", "0"},
		{"ipv4/conf/*/arp_ignore", "0"},
		{"ipv4/conf/*/proxy_arp", "0"},
		{"ipv4/conf/*/route_localnet", "0"},
		{"ipv4/conf/*/rp_filter", "0"},
		{"ipv6/conf/*/disable_ipv6", "0"},
	} {
		files, err := filepath.Glob("/proc/sys/net/" + s.path)
		if err != nil {
			return err
		}
		for _, f := range files { // none of a kernel without the protocol
			if err := os.WriteFile(f, []byte(s.value), 0); err != nil {
				return err
			}
		}
	}
	return nil
}
