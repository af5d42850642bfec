package qemu_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// A machine from its making to its end, each step done twice.
func TestLife(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	gold := r.image(idleGuest, plain...)
	m := r.machine()
	if st := r.inspect(m); !cmp.Equal(st, vm.Status{}) {
		t.Fatalf("got %+v before there is a machine, want nothing", st)
	}

	r.clone(m, gold)
	r.clone(m, gold)
	want := vm.Status{
		Power: vm.PoweredOff, Tools: vm.ToolsNotRunning, GuestOS: "debian12-64",
		CPUs: 2, Memory: 64, MAC: r.inspect(m).MAC,
	}
	want.NICs = []vm.NIC{{Model: "vmxnet3", MACAddress: want.MAC, NetworkType: vm.NAT}}
	if diff := cmp.Diff(want, r.inspect(m)); diff != "" {
		t.Errorf("cloned machine, -want +got:\n%s", diff)
	}
	if mac, err := net.ParseMAC(want.MAC); err != nil || mac[0]&3 != 2 {
		t.Errorf("got MAC address %q (%v), want a locally administered unicast one", want.MAC, err)
	}

	r.start(m)
	pid := pidOf(t, m)
	r.start(m)
	if got := pidOf(t, m); got != pid {
		t.Errorf("got process %d after a second Start, want still %d", got, pid)
	}
	want.Power, want.IP, want.Tools = vm.PoweredOn, "127.0.0.1", vm.ToolsUnknown
	want.Forwards = []vm.PortForward{{Guest: 22}, {Guest: 80}}
	want.NICs[0].IPAddress = want.IP
	got := r.inspect(m)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(vm.PortForward{}, "Host")); diff != "" {
		t.Errorf("running machine, -want +got:\n%s", diff)
	}
	for _, f := range got.Forwards {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.Host)))
		if err != nil {
			t.Errorf("nobody listens at the port forwarded to %d: %v", f.Guest, err)
			continue
		}
		conn.Close()
	}
	until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })

	for range 2 {
		if err := r.Destroy(t.Context(), vm.Machine{ID: m.ID, Dir: m.Dir}); err != nil {
			t.Fatalf("Destroy: %v", err)
		}
		if _, err := os.Stat(m.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v for the folder of a destroyed machine, want no folder", err)
		}
		if st := r.inspect(m); !cmp.Equal(st, vm.Status{}) {
			t.Errorf("got %+v after Destroy, want nothing", st)
		}
	}
	if n := processes(t, m); n != 0 {
		t.Errorf("got %d processes of a destroyed machine, want none", n)
	}
}

// The image is read-only, and two machines made of it do not share what they
// write.
func TestGoldIsNotTouched(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	gold := r.image(idleGuest, plain...)
	if err := os.Chmod(filepath.Join(filepath.Dir(gold), "disk.vmdk"), 0o400); err != nil {
		t.Fatal(err)
	}
	before := sums(t, filepath.Dir(gold))
	a, b := r.machine(), r.machine()
	for _, m := range []vm.Machine{a, b} {
		r.clone(m, gold)
		r.start(m)
	}
	if r.inspect(a).MAC == r.inspect(b).MAC {
		t.Error("two machines have one MAC address")
	}
	if err := r.Destroy(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := r.inspect(b).Power; got != vm.PoweredOn {
		t.Errorf("got %q once the other machine is gone, want %q", got, vm.PoweredOn)
	}
	if err := r.Destroy(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, sums(t, filepath.Dir(gold))); diff != "" {
		t.Errorf("the image changed, -before +after:\n%s", diff)
	}
}

// sums returns the hash of every file in dir.
func sums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][32]byte{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = sha256.Sum256(data)
	}
	return all
}

// A guest that powers itself off is seen to be off and can be started again,
// on the same ports unless somebody took one.
func TestGuestPowersOff(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(powerOffGuest)
	forwards := func() []vm.PortForward {
		text, err := os.ReadFile(filepath.Join(m.Dir, "link.json"))
		if err != nil {
			t.Fatal(err)
		}
		var ports []vm.PortForward
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.Trim(line, " ,\n"), ": ")
			if n, err := strconv.Atoi(value); err == nil && name == `"host"` {
				ports = append(ports, vm.PortForward{Host: n})
			}
		}
		return ports
	}
	isOff := func() bool { return r.inspect(m).Power == vm.PoweredOff }
	until(t, harness.Timeout, "the guest's end", isOff)
	first := forwards()

	r.start(m)
	until(t, harness.Timeout, "the guest's second end", isOff)
	if diff := cmp.Diff(first, forwards()); diff != "" {
		t.Errorf("other ports at the second start, -first +second:\n%s", diff)
	}

	taken, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(first[0].Host)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.start(m)
	if got := forwards(); got[0] == first[0] || got[1] != first[1] {
		t.Errorf("got ports %v although the first of %v is taken, want another one for that alone", got, first)
	}
}

const startOnly = "OSXB_TEST_START_ONLY" // <data folder> <id>

// startAndWait is the daemon that TestOutlivesTheDaemon kills.
func startAndWait() int {
	data, id, _ := strings.Cut(os.Getenv(startOnly), " ")
	d, err := openDriver(options(data))
	if err != nil {
		return 1
	}
	m := vm.Machine{ID: id, Dir: filepath.Join(data, "vms", id), CPUs: 2, Memory: 64, Network: vm.NAT}
	if err := d.Start(context.Background(), m); err != nil {
		return 2
	}
	_, _ = os.Stdout.WriteString("started\n")
	select {}
}

// The machine runs on when the daemon is killed, and the next one finds it.
func TestOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, plain...))
	daemon := exec.Command(os.Args[0])
	daemon.Env = append(os.Environ(), startOnly+"="+r.data+" "+m.ID)
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 8)
	_, reading := out.Read(word)
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	if string(word) != "started\n" {
		t.Fatalf("got %q (%v) of the daemon, want that it started the machine", word, reading)
	}

	pid := pidOf(t, m)
	if got := r.inspect(m).Power; got != vm.PoweredOn {
		t.Errorf("got %q once the daemon is killed, want %q", got, vm.PoweredOn)
	}
	r.start(m)
	if got := pidOf(t, m); got != pid {
		t.Errorf("got process %d, want the one that ran already, %d", got, pid)
	}
}

// The number in a pid file may be another process's by now: it is not believed.
func TestStalePidFile(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, plain...))
	if err := os.WriteFile(filepath.Join(m.Dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.inspect(m).Power; got != vm.PoweredOff {
		t.Errorf("got %q, want %q", got, vm.PoweredOff)
	}
	r.start(m)
	if got := r.inspect(m).Power; got != vm.PoweredOn {
		t.Errorf("got %q, want %q", got, vm.PoweredOn)
	}
}

// Destroy kills the machine's QEMU and no other process: not the one that has
// the pid file's number by now, and not one whose arguments name the machine.
func TestDestroySparesOthers(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, plain...))
	recycled := exec.Command("sleep", "1000")
	namesake := exec.Command("sh", "-c", "read word", "sh", "-name", "guest=osxb-"+m.ID)
	for _, c := range []*exec.Cmd{recycled, namesake} {
		if _, err := c.StdinPipe(); err != nil { // from which nothing is to be read
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(m.Dir, "pid"), []byte(strconv.Itoa(recycled.Process.Pid)), 0o600); err != nil {
		t.Error(err)
	}
	if err := r.Destroy(t.Context(), m); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	for _, c := range []*exec.Cmd{recycled, namesake} {
		_ = c.Process.Signal(syscall.SIGTERM) // what it did not get before
		_ = c.Wait()
		if by := c.ProcessState.Sys().(syscall.WaitStatus).Signal(); by != syscall.SIGTERM {
			t.Errorf("%s ended by %v (%v), want %v", c.Path, by, c.ProcessState, syscall.SIGTERM)
		}
	}
}

// Many ask one machine at once, while QEMU serves one client at a time.
func TestManyInspect(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			st, err := r.Inspect(t.Context(), m)
			if err != nil || st.Power != vm.PoweredOn {
				t.Errorf("got %q and error %v, want %q", st.Power, err, vm.PoweredOn)
			}
		})
	}
	all.Wait()
}

// A stopped QEMU is no hanging daemon but an error that says what to do, and
// is destroyed like any other.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	pid := pidOf(t, m)
	signal(t, pid, syscall.SIGSTOP)
	limited, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			_, err := r.Inspect(limited, m)
			wantCode(t, err, vm.CodeOpen, strconv.Itoa(pid), filepath.Join(m.Dir, "qmp"), "destroy")
		})
	}
	all.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Inspect(ctx, m); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v of a cancelled Inspect, want one that wraps the context's", err)
	}
	if err := r.Destroy(t.Context(), m); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if n := processes(t, m); n != 0 {
		t.Errorf("got %d processes of a destroyed machine, want none", n)
	}
}

// Readers of a machine whose QEMU does not answer for some seconds wait for it,
// and none of them waits in vain, however many they are.
func TestSlowProcess(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	pid := pidOf(t, m)
	signal(t, pid, syscall.SIGSTOP)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			st, err := r.Inspect(t.Context(), m)
			if err != nil || st.Power != vm.PoweredOn {
				t.Errorf("got %q and error %v of a machine that goes on after 3 s, want %q", st.Power, err, vm.PoweredOn)
			}
		})
	}
	time.Sleep(3 * time.Second) // longer than QEMU took on a busy host
	signal(t, pid, syscall.SIGCONT)
	all.Wait()
}

// Whatever state a machine's folder is in, Destroy leaves nothing.
func TestDestroyOfDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(dir string) error{
		"machine file corrupt": func(dir string) error { return os.WriteFile(filepath.Join(dir, "machine.json"), []byte("{"), 0o600) },
		"machine file missing": func(dir string) error { return os.Remove(filepath.Join(dir, "machine.json")) },
		"socket missing":       func(dir string) error { return os.Remove(filepath.Join(dir, "qmp")) },
		"read-only folders": func(dir string) error {
			deep := filepath.Join(dir, "a", "b")
			return errors.Join(os.MkdirAll(deep, 0o700), os.Chmod(deep, 0), os.Chmod(filepath.Dir(deep), 0o500), os.Chmod(dir, 0o500))
		},
		"pid file missing": func(dir string) error { return onLinux(os.Remove(filepath.Join(dir, "pid"))) },
		"folder missing":   func(dir string) error { return onLinux(os.RemoveAll(dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTestDriver(t)
			m := r.running(idleGuest)
			if err := damage(m.Dir); err != nil {
				t.Skip(err)
			}
			if err := r.Destroy(t.Context(), m); err != nil {
				t.Fatalf("Destroy: %v", err)
			}
			if n := processes(t, m); n != 0 {
				t.Errorf("got %d processes of a destroyed machine, want none", n)
			}
			if st := r.inspect(m); !cmp.Equal(st, vm.Status{}) {
				t.Errorf("got %+v after Destroy, want nothing", st)
			}
		})
	}
}

// onLinux skips a damage that only Linux lets the driver see through.
func onLinux(err error) error {
	if runtime.GOOS != "linux" {
		return errors.New("without /proc a QEMU whose pid file is gone cannot be found")
	}
	return err
}

// A machine whose file is corrupt, or gone while it runs, exists and cannot be
// read.
func TestInspectOfCorrupt(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, plain...))
	if err := os.WriteFile(filepath.Join(m.Dir, "machine.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := r.Inspect(t.Context(), m)
	wantCode(t, err, vm.CodeOpen, "machine.json")

	m = r.running(idleGuest)
	if err := os.Remove(filepath.Join(m.Dir, "machine.json")); err != nil {
		t.Fatal(err)
	}
	_, err = r.Inspect(t.Context(), m)
	wantCode(t, err, vm.CodeOpen, "machine.json")
}

// QEMU's own words say why a machine does not start.
func TestStartFails(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, plain...))
	if err := os.WriteFile(filepath.Join(m.Dir, "disk0.qcow2"), []byte("no disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := r.Start(t.Context(), m)
	wantCode(t, err, vm.CodeHypervisor, "disk0.qcow2", "too short")
	if got := r.inspect(m).Power; got != vm.PoweredOff {
		t.Errorf("got %q, want %q", got, vm.PoweredOff)
	}
}

// Start cut off at any moment leaves no process that a later call does not
// know of.
func TestStartCutOff(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, plain...))
	for after := time.Duration(0); after < 60*time.Millisecond; after += 7 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		err := r.Start(ctx, m)
		cancel()
		if err == nil {
			break // the machine was quicker
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v after %v, want one that wraps the context's", err, after)
		}
		if n := processes(t, m); n != 0 {
			t.Errorf("got %d processes after a Start cut off at %v, want none", n, after)
		}
	}
	r.start(m)
	if n := processes(t, m); n != 1 {
		t.Errorf("got %d processes, want 1", n)
	}
}
