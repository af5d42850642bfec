package qemu_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// hostileProgram names a built vm/vmtest/hostile for a test that runs as another user.
const hostileProgram = "OSXB_TEST_HOSTILE"

// tried is what became of one of the things that the hostile program tries.
type tried struct {
	Name      string
	Succeeded bool
	Why       string
}

// A program that stands for a QEMU which a guest took over gets nowhere if the daemon is root, although it has all files
// of a real machine.
func TestHostileQEMU(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	if !inNamespace(t) {
		return
	}
	r := newTestDriver(t)
	h := newHostile(t, r, buildHostile(t), "bridge")
	for _, it := range h.run() {
		if it.Succeeded {
			t.Errorf("it could %s", it.Name)
		}
	}
}

// Under an ordinary user's daemon it gets no further than QEMU's user network, and than what a limit for each user, which
// such a daemon cannot set, would prevent. SECURITY.md has the same list.
func TestHostileQEMUOfUser(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	if os.Geteuid() == 0 {
		asNobody(t, buildHostile(t))
		return
	}
	program := os.Getenv(hostileProgram)
	if program == "" {
		program = buildHostile(t)
	}
	r := newTestDriver(t)
	h := newHostile(t, r, program, "user")
	var could []string
	for _, it := range h.run() {
		if it.Succeeded {
			could = append(could, it.Name)
		}
	}
	want := []string{"reach the API on loopback", "reach the LAN", "leave a process behind", "start more and more processes"}
	if !slices.Equal(could, want) {
		t.Errorf("it could %q, want only %q", could, want)
	}
}

// asNobody runs the test again as a user without rights.
func asNobody(t *testing.T, program string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/tmp"
	cmd.Env = append(os.Environ(), hostileProgram+"="+program, "HOME=/nonexistent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// buildHostile builds the program. A -race program would not start within the limits.
func buildHostile(t *testing.T) string {
	t.Helper()
	program := filepath.Join(harness.ProgramDir(t), "hostile")
	cmd := exec.Command("go", "build", "-o", program, "osx-builder/vm/vmtest/hostile")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	harness.Must(t, os.Chmod(program, 0o755))
	return program
}

// hostile is a machine whose QEMU is the hostile program, beside one of a real QEMU.
type hostile struct {
	t      *testing.T
	driver *qemu.Driver // of the hostile program
	real   *testDriver
	m      vm.Machine
	sleep  string // the argument of the process that it leaves behind, which no other test's has
}

func newHostile(t *testing.T, r *testDriver, program, network string) *hostile {
	t.Helper()
	victim := r.running(idleGuest)
	own := filepath.Join(harness.ProgramDir(t), "qemu")
	h := &hostile{t: t, real: r, m: r.machine(), sleep: fmt.Sprintf("1000.%019d", rand.Int64())}
	targets, err := json.Marshal(h.targets(victim))
	harness.Must(t, err)
	vmtest.WriteProgram(t, own, harness.ReadFile(t, program)+"\nHOSTILE-TARGETS:"+string(targets))
	o := options(r.data)
	o.QEMU, o.Network = own, network
	h.driver, err = openDriver(o)
	harness.Must(t, err)
	t.Cleanup(func() { harness.Must(t, h.driver.Close()) })
	return h
}

// targets makes what there is to reach.
func (h *hostile) targets(victim vm.Machine) map[string]any {
	h.t.Helper()
	token := filepath.Join(h.real.data, "tokens")
	record := filepath.Join(h.real.data, "vms", uuid.NewString()+".json")
	harness.Must(h.t, errors.Join(os.WriteFile(token, []byte("secret"), 0o600), os.WriteFile(record, []byte("{}"), 0o600)))
	listen := func(network, address string) net.Addr {
		l, err := net.Listen(network, address)
		harness.Must(h.t, err)
		h.t.Cleanup(func() { l.Close() })
		return l.Addr()
	}
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	harness.Must(h.t, err)
	done := make(chan struct{})
	go func() { // answers
		defer close(done)
		b := make([]byte, 10)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(b[:n], from)
		}
	}()
	h.t.Cleanup(func() { udp.Close(); <-done })
	socket := filepath.Join(h.real.data, "api")
	listen("unix", socket)
	abstract := "osxb-" + uuid.NewString()
	listen("unix", "@"+abstract)
	disks, err := filepath.Glob(filepath.Join(h.real.data, "gold *", "*", "disk.vmdk"))
	if err != nil || len(disks) == 0 {
		h.t.Fatalf("got no disk of an image: %v", err)
	}
	return map[string]any{
		"Data": h.real.data, "Own": h.m.Dir, "Victim": victim.Dir, "Gold": disks[0], "Record": record, "Token": token,
		"APISocket": socket, "Abstract": abstract, "API": listen("tcp4", "127.0.0.1:0").String(), "LAN": udp.LocalAddr().String(),
		"Daemon": os.Getpid(), "VictimPID": pidOf(h.t, victim), "Memory": int64(6) << 30, "Sleep": h.sleep,
	}
}

// run starts the machine with the hostile program, and returns what became of each thing. Three are decided later: the
// overlay's data file by the next start with the real QEMU, and the process that was left by Destroy.
func (h *hostile) run() []tried {
	h.t.Helper()
	h.real.clone(h.m, h.real.image(idleGuest, plain...))
	err := h.driver.Start(h.t.Context(), h.m)
	if err == nil {
		h.t.Fatal("the hostile program answers like a QEMU")
	}
	log, err := os.ReadFile(filepath.Join(h.m.Dir, "qemu.log"))
	harness.Must(h.t, err)
	var all []tried
	for line := range strings.Lines(string(log)) {
		var it tried
		if err := json.Unmarshal([]byte(line), &it); err != nil {
			h.t.Errorf("the program wrote %q", line)
			continue
		}
		h.t.Logf("%-40s %t: %s", it.Name, it.Succeeded, strings.ReplaceAll(it.Why, "\n", "; "))
		all = append(all, it)
	}
	if len(all) < 30 {
		h.t.Fatalf("it tried %d things, want 30 or more: %s", len(all), log)
	}
	decide := func(name string, succeeded bool) {
		i := slices.IndexFunc(all, func(it tried) bool { return it.Name == name })
		if i < 0 || !strings.Contains(all[i].Why, "decides") {
			h.t.Fatalf("it did not %s", name)
		}
		all[i].Succeeded = succeeded
	}
	err = h.real.Start(h.t.Context(), h.m)
	decide("give the overlay a data file", err == nil || !strings.Contains(err.Error(), "incompatible features 0x4"))
	left := processesNamed(h.t, "/bin/sleep\x00"+h.sleep)
	harness.Must(h.t, h.real.Destroy(h.t.Context(), h.m))
	h.t.Cleanup(func() {
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	if len(left) == 0 {
		h.t.Error("it left no process that Destroy could kill")
	}
	decide("leave a process behind", len(processesNamed(h.t, "/bin/sleep\x00"+h.sleep)) > 0)
	return all
}

// processesNamed returns the running processes with this command line.
func processesNamed(t *testing.T, line string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	harness.Must(t, err)
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), line) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
