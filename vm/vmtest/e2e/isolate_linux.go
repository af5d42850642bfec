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

// isolatedEnv is an environment variable that is set in processes with their own
// network and mount namespaces. Its value is the name of the test for which
// [IsolateTest] started the process, or "-".
const isolatedEnv = "OSX_BUILDER_E2E_ISOLATED"

// Isolate runs this program again as root in its own network and mount
// namespaces, so that it does not change the host and does not interfere with
// other programs. The calling process exits with the status of the new one. In
// the new process, Isolate returns true. It returns false if the process is not
// root and sudo needs a password or is missing.
func Isolate() (bool, error) {
	if os.Getenv(isolatedEnv) != "" {
		return true, InitNamespaces()
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := rootCommand("-", self, os.Args[1:]...)
	if cmd == nil {
		return false, nil
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	runtime.LockOSThread() // Pdeathsig is sent when this thread ends
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("starting the program in its own namespaces: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for s := range signals {
			forwardSignal(cmd.Process, s.(syscall.Signal))
		}
	}()
	_ = cmd.Wait() // the exit status says the same
	if err := restoreOwner(os.Getenv("GOCACHE")); err != nil {
		fmt.Fprintln(os.Stderr, "restoring the owner of the files in Go's cache:", err)
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return false, nil
}

// IsolateTest is [Isolate] for a single test or benchmark: it runs it again, and
// reports whether this is the new run. The results of a benchmark are printed.
// Without root and sudo it skips the test; in CI the test fails.
func IsolateTest(t testing.TB) bool {
	t.Helper()
	if os.Getenv(isolatedEnv) == t.Name() {
		if err := InitNamespaces(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	timeout := flag.Lookup("test.timeout").Value.String()
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=" + timeout}
	_, measures := t.(*testing.B)
	if measures {
		args = []string{"-test.run=^$", "-test.bench=^" + t.Name() + "$", "-test.benchtime=1x", "-test.timeout=" + timeout}
	}
	cmd := rootCommand(t.Name(), os.Args[0], args...)
	if cmd == nil {
		const reason = "this test needs root, or sudo without a password"
		if os.Getenv("CI") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	runtime.LockOSThread() // as above
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if measures {
		fmt.Printf("%s", out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	return false
}

// rootCommand returns a command that runs the program as root. If this process is
// root, the program gets its own namespaces, and isolatedEnv is set to value.
// Otherwise the command runs the program by sudo, and the program calls Isolate
// again. Without sudo the command is nil.
func rootCommand(value, program string, args ...string) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), quickExit, isolatedEnv+"="+value)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		}
		return cmd
	}
	const sudoFlags = "-nHE" // never ask for a password, use root's home, keep the environment
	if exec.Command("sudo", sudoFlags, "true").Run() != nil {
		return nil
	}
	sudoArgs := []string{
		sudoFlags, "env", quickExit,
		"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin", // the user's programs, then root's
		"TMPDIR=" + os.TempDir(), // the dynamic linker removes it when it starts sudo
		"GIT_OPTIONAL_LOCKS=0",   // so that git creates no files of root in the repository
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOENV"} { // those in the user's home
		if value, err := exec.Command("go", "env", name).Output(); err == nil {
			sudoArgs = append(sudoArgs, name+"="+strings.TrimSpace(string(value)))
		}
	}
	return exec.Command("sudo", append(append(sudoArgs, program), args...)...)
}

// forwardSignal sends a signal to the process. Only root can send one to a process
// that sudo started.
func forwardSignal(p *os.Process, s syscall.Signal) {
	if err := p.Signal(s); errors.Is(err, os.ErrPermission) {
		_ = exec.Command("sudo", "-n", "kill", "-"+strconv.Itoa(int(s)), strconv.Itoa(p.Pid)).Run() // it may have ended
	}
}

// restoreOwner changes the owner of root's files below dir to the user who ran
// sudo, if that user owns dir.
func restoreOwner(dir string) error {
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
			return nil // other processes remove files at the same time
		}
		return err
	})
}

// InitNamespaces resets the calling thread's namespaces to the kernel's defaults,
// because new namespaces inherit settings of the host. The loopback device is up,
// IPv4 forwarding and the settings of devices have their defaults, and /run is
// empty.
func InitNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting an empty /run: %w", err)
	}
	return initNetwork()
}

// initNetwork does the part of InitNamespaces that concerns the network.
func initNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback device: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing up the loopback device: %w", err)
	}
	for _, s := range []struct{ path, value string }{
		{"ipv4/ip_forward", "0"}, // first, because it changes other settings
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
		for _, f := range files { // a kernel without the protocol has none
			if err := os.WriteFile(f, []byte(s.value), 0); err != nil {
				return err
			}
		}
	}
	return nil
}
