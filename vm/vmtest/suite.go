package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"osx-builder/vm"
)

// Harness is what TestDriver needs to test a Driver.
type Harness struct {
	// Open opens the driver as a daemon does at its start: opened again, it must
	// find what the one before left. Open closes the driver with the test.
	Open func(t *testing.T) vm.Driver

	// Gold is the .vmx file of an unpacked image with one disk and one NIC. Its
	// guestOS is GuestOS, and its guest gives a sign of life and keeps running.
	Gold, GuestOS string

	// Kill ends the machine's process on the host, if there is one that can be
	// ended and the driver can find out that it was. Otherwise Kill is nil.
	Kill func(t *testing.T, m vm.Machine)

	// Parallel lets the tests run side by side.
	Parallel bool

	// Limit is how long one call, or the guest's boot, may take.
	Limit time.Duration
}

// TestDriver checks the contract of [vm.Driver], and those of [vm.Powerer],
// [vm.Screenshotter] and [vm.Consoler] if the driver has them.
func TestDriver(t *testing.T, h Harness) {
	type test struct {
		name string
		run  func(*testing.T, Harness)
	}
	tests := []test{
		{"lifecycle", lifecycle},
		{"interrupted calls are finished", interrupted},
		{"an incomplete clone is replaced", incompleteClone},
		{"a machine that was never created", neverCreated},
		{"destroy while running, by ID and folder", func(t *testing.T, h Harness) {
			d, m := h.startMachine(t)
			h.destroy(t, d, vm.Machine{ID: m.ID, Dir: m.Dir})
		}},
		{"destroy after the folder was removed", folderRemoved},
		{"a missing image", missingImage},
		{"the host", hostDescription},
	}
	var d vm.Driver
	t.Run("open", func(t *testing.T) { d = h.Open(t) }) // only to find out which interfaces it has
	if _, ok := d.(vm.Powerer); ok {
		// First, because they take longest.
		tests = append([]test{{"power actions", powerActions}, {"interrupted power actions", interruptedPowerActions}}, tests...)
	}
	if h.Kill != nil {
		tests = append(tests, test{"a killed process", processKilled})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if h.Parallel {
				t.Parallel()
			}
			before := fileStates(t, filepath.Dir(h.Gold))
			test.run(t, h)
			if diff := cmp.Diff(before, fileStates(t, filepath.Dir(h.Gold))); diff != "" {
				t.Errorf("the gold image changed (-before +after):\n%s", diff)
			}
		})
	}
}

// lifecycle creates and starts a machine, does with it what must not change it, and
// destroys it.
func lifecycle(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.newMachine(t)
	m.CPUs = 2
	h.destroyAtEnd(t, d, m)
	ctx := h.context(t)
	must(t, "Clone", d.Clone(ctx, m, h.Gold))
	st := h.inspect(t, d, m)
	if st.Power != vm.PoweredOff || st.GuestOS != h.GuestOS || st.IP != "" || st.Up || st.StoppedBecause != "" || st.Died {
		t.Errorf("after Clone: got %+v, want powered-off, guest OS %q, no address and no reason", st, h.GuestOS)
	}
	must(t, "Start", d.Start(ctx, m))
	concurrentReaders(t, h, d, m) // also while the guest boots
	st = h.waitUp(t, d, m)
	if st.Power != vm.PoweredOn || st.CPUs != m.CPUs || st.Memory != m.Memory || st.GuestOS != h.GuestOS || st.MAC == "" {
		t.Errorf("after Start: got %+v, want powered-on, %d CPUs, %d MiB, guest OS %q and a MAC",
			st, m.CPUs, m.Memory, h.GuestOS)
	}
	if len(st.NICs) != 1 || st.NICs[0].Model == "" || st.NICs[0].MACAddress != st.MAC || st.NICs[0].NetworkType != m.Network || st.NICs[0].IPAddress != st.IP {
		t.Errorf("after Start: got NICs %+v, want one on network %q with MAC %s and address %q", st.NICs, m.Network, st.MAC, st.IP)
	}
	tests := map[string]func(*testing.T, Harness, vm.Driver, vm.Machine){
		"repeated calls change nothing":               repeated,
		"another driver finds the machine":            reopened,
		"concurrent readers":                          concurrentReaders,
		"a sweep keeps known machines":                sweep,
		"another machine shares the image, not disks": anotherMachine,
	}
	if _, ok := d.(vm.Screenshotter); ok {
		tests["screenshot"] = screenshot
	}
	if _, ok := d.(vm.Consoler); ok {
		tests["console"] = console
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, h, d, m) })
	}
	h.destroy(t, d, m)
	h.destroy(t, d, m)
}

func neverCreated(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.newMachine(t)
	if st := h.inspect(t, d, m); !cmp.Equal(st, vm.Status{}) {
		t.Errorf("Inspect: got %+v, want the zero Status", st)
	}
	h.destroy(t, d, m)
}

func repeated(t *testing.T, h Harness, d vm.Driver, m vm.Machine) {
	ctx := h.context(t)
	must(t, "Clone of a running machine", d.Clone(ctx, m, h.Gold))
	must(t, "Start of a running machine", d.Start(ctx, m))
	if st := h.waitUp(t, d, m); st.Power != vm.PoweredOn {
		t.Errorf("after the repeated calls: got %q, want powered-on", st.Power)
	}
}

// reopened checks that the driver keeps nothing only in memory.
func reopened(t *testing.T, h Harness, d vm.Driver, m vm.Machine) {
	before := h.waitAddress(t, d, m)
	d = h.Open(t)
	after := h.waitAddress(t, d, m)
	if before.MAC != after.MAC || after.Power != vm.PoweredOn || before.IP != after.IP || !cmp.Equal(before.NICs, after.NICs) || !cmp.Equal(before.Warnings, after.Warnings) {
		t.Errorf("got %+v from another driver, want %+v", after, before)
	}
	must(t, "Start", d.Start(h.context(t), m))
}

// interrupted cancels each call at once and after some time, and repeats it.
func interrupted(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.newMachine(t)
	step := func(name string, call func(context.Context) error) {
		for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(h.context(t), after)
			err := call(ctx)
			cancel()
			if err != nil && ctx.Err() == nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s interrupted after %v: got %v, want an error that wraps the context's", name, after, err)
			}
		}
		must(t, name+" after interruptions", call(h.context(t)))
	}
	step("Clone", func(ctx context.Context) error { return d.Clone(ctx, m, h.Gold) })
	step("Start", func(ctx context.Context) error { return d.Start(ctx, m) })
	if st := h.waitUp(t, d, m); st.Power != vm.PoweredOn {
		t.Errorf("got %q, want powered-on", st.Power)
	}
	step("Destroy", func(ctx context.Context) error { return d.Destroy(ctx, m) })
	h.checkGone(t, d, m)
}

// incompleteClone leaves a folder as a crash of the host during Clone can.
func incompleteClone(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.newMachine(t)
	must(t, "making the folder", os.MkdirAll(filepath.Join(m.Dir, "incomplete"), 0o700))
	must(t, "making a file", os.WriteFile(filepath.Join(m.Dir, "incomplete", "file"), nil, 0o600))
	if st := h.inspect(t, d, m); st.Power != "" {
		t.Errorf("Inspect of an incomplete clone: got %q, want no power state", st.Power)
	}
	ctx := h.context(t)
	must(t, "Clone", d.Clone(ctx, m, h.Gold))
	must(t, "Start", d.Start(ctx, m))
	h.waitUp(t, d, m)
	h.destroy(t, d, m)
}

// anotherMachine makes a second machine of the image beside m, and destroys it.
func anotherMachine(t *testing.T, h Harness, d vm.Driver, m vm.Machine) {
	n := h.newMachine(t)
	h.destroyAtEnd(t, d, n)
	ctx := h.context(t)
	must(t, "Clone", d.Clone(ctx, n, h.Gold))
	must(t, "Start", d.Start(ctx, n))
	one, two := h.waitUp(t, d, m), h.waitUp(t, d, n)
	if one.MAC == two.MAC {
		if _, fake := d.(*Driver); !fake {
			t.Errorf("two machines have one MAC: %s", one.MAC)
		}
	}
	h.destroy(t, d, n)
	if st := h.inspect(t, d, m); st.Power != vm.PoweredOn {
		t.Errorf("the first machine is %q after the second was destroyed, want powered-on", st.Power)
	}
}

func concurrentReaders(t *testing.T, h Harness, d vm.Driver, m vm.Machine) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				st, err := d.Inspect(h.context(t), m)
				if err != nil || st.Power != vm.PoweredOn {
					t.Errorf("got %q, %v, want powered-on", st.Power, err)
				}
			}
		})
	}
	wg.Wait()
}

// processKilled kills the machine's process. Every driver then reports that the
// machine died, and why, until the machine is started again.
func processKilled(t *testing.T, h Harness) {
	d, m := h.startMachine(t)
	h.Kill(t, m)
	h.waitPower(t, d, m, vm.PoweredOff)
	for _, d := range []vm.Driver{d, h.Open(t)} {
		if st := h.inspect(t, d, m); st.StoppedBecause == "" || !st.Died {
			t.Errorf("after the process was killed: got %+v, want Died and a reason", st)
		}
	}
	must(t, "Start after the process was killed", d.Start(h.context(t), m))
	h.waitPower(t, d, m, vm.PoweredOn)
	h.destroy(t, d, m)
}

func folderRemoved(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.newMachine(t)
	must(t, "Clone", d.Clone(h.context(t), m, h.Gold))
	must(t, "removing the folder", os.RemoveAll(m.Dir))
	h.destroy(t, d, m)
}

func missingImage(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.newMachine(t)
	if err := d.Clone(h.context(t), m, filepath.Join(t.TempDir(), "no.vmx")); err == nil {
		t.Error("Clone of a missing image: got no error")
	}
	if st := h.inspect(t, d, m); st.Power != "" {
		t.Errorf("after the failed Clone: got %q, want no power state", st.Power)
	}
	h.destroy(t, d, m)
}

// hostDescription checks what the driver says about the host.
func hostDescription(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.newMachine(t)
	if l := d.Limits(); l.CPUs < m.CPUs || l.Memory < m.Memory {
		t.Errorf("Limits: got %+v, want at least those of a machine with %d CPUs and %d MiB", l, m.CPUs, m.Memory)
	}
	must(t, "Ready", d.Ready(h.context(t)))
	for _, n := range []vm.NetworkType{vm.Bridged, vm.NAT, vm.HostOnly} {
		err := d.Network(n)
		e, ok := errors.AsType[*vm.Error](err)
		if err != nil && (!ok || e.Code != vm.CodeNetworkUnavailable || e.Message == "") {
			t.Errorf("Network(%s): got %v, want nil or a message with code %s", n, err, vm.CodeNetworkUnavailable)
		}
	}
	must(t, "Network("+string(m.Network)+")", d.Network(m.Network))
	for name, value := range d.Describe(h.context(t)) {
		if name == "" || value == "" {
			t.Errorf("Describe: got %q for %q, want neither to be empty", value, name)
		}
	}
}

// sweep sweeps as a daemon that starts does, while a machine runs.
func sweep(t *testing.T, h Harness, d vm.Driver, m vm.Machine) {
	before := h.waitUp(t, d, m)
	d = h.Open(t)
	must(t, "Sweep", d.Sweep(h.context(t), func(id string) bool { return id == m.ID }))
	if after := h.waitUp(t, d, m); after.Power != vm.PoweredOn || after.MAC != before.MAC || after.IP != before.IP {
		t.Errorf("after Sweep: got %+v, want %+v", after, before)
	}
}

// newMachine returns a new machine. Its folder is removed with the test.
func (h Harness) newMachine(t *testing.T) vm.Machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmtest") // a short path, because it will hold sockets
	must(t, "making a folder", err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	id := uuid.NewString()
	return vm.Machine{
		ID: id, Dir: filepath.Join(dir, id),
		CPUs: 1, Memory: 256, Network: vm.NAT, Annotation: "osx-builder conformance suite",
	}
}

// startMachine clones and starts a new machine.
func (h Harness) startMachine(t *testing.T) (vm.Driver, vm.Machine) {
	t.Helper()
	d := h.Open(t)
	m := h.newMachine(t)
	h.destroyAtEnd(t, d, m)
	must(t, "Clone", d.Clone(h.context(t), m, h.Gold))
	must(t, "Start", d.Start(h.context(t), m))
	return d, m
}

// destroyAtEnd destroys the machine with the test, which may have failed before it
// did so. Then it shows what the machine's logs have.
func (h Harness) destroyAtEnd(t *testing.T, d vm.Driver, m vm.Machine) {
	t.Cleanup(func() {
		if t.Failed() {
			ShowLogs(t, m)
		}
		_ = d.Destroy(context.Background(), m)
	})
}

// ShowLogs logs the ends of the machine's log files, and how its hypervisor
// process ended.
func ShowLogs(t *testing.T, m vm.Machine) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(m.Dir, "*.log"))
	for _, path := range append(logs, filepath.Join(m.Dir, "exit")) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		const most = 8 << 10
		t.Logf("%s ends with:\n%s", path, bytes.Trim(text[max(0, len(text)-most):], "\x00\n"))
	}
}

func (h Harness) context(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), h.Limit)
	t.Cleanup(cancel)
	return ctx
}

func (h Harness) inspect(t *testing.T, d vm.Driver, m vm.Machine) vm.Status {
	t.Helper()
	st, err := d.Inspect(h.context(t), m)
	must(t, "Inspect", err)
	for _, w := range st.Warnings {
		if w.Code == "" || w.Message == "" {
			t.Errorf("got the warning %+v, want a code and a message", w)
		}
	}
	if st.Power != vm.PoweredOff && (st.StoppedBecause != "" || st.Died) {
		t.Errorf("got %+v, want a reason for the stop only while the machine is off", st)
	}
	return st
}

// waitUp waits for a sign of life of the guest.
func (h Harness) waitUp(t *testing.T, d vm.Driver, m vm.Machine) vm.Status {
	t.Helper()
	return h.waitFor(t, d, m, "sign of life", func(st vm.Status) bool { return st.Up })
}

// waitAddress waits for the guest's address.
func (h Harness) waitAddress(t *testing.T, d vm.Driver, m vm.Machine) vm.Status {
	t.Helper()
	return h.waitFor(t, d, m, "address", func(st vm.Status) bool { return st.Up && st.IP != "" })
}

func (h Harness) waitFor(t *testing.T, d vm.Driver, m vm.Machine, what string, done func(vm.Status) bool) vm.Status {
	t.Helper()
	ctx := h.context(t)
	for {
		st := h.inspect(t, d, m)
		if done(st) {
			return st
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no %s within %v; last seen: %+v", what, h.Limit, st)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// destroy destroys the machine and checks that nothing is left.
func (h Harness) destroy(t *testing.T, d vm.Driver, m vm.Machine) {
	t.Helper()
	must(t, "Destroy", d.Destroy(h.context(t), m))
	h.checkGone(t, d, m)
}

// checkGone checks that nothing is left of a destroyed machine.
func (h Harness) checkGone(t *testing.T, d vm.Driver, m vm.Machine) {
	t.Helper()
	if _, err := os.Lstat(m.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder %s is left after Destroy (%v)", m.Dir, err)
	}
	if st := h.inspect(t, d, m); !cmp.Equal(st, vm.Status{}) {
		t.Errorf("Inspect after Destroy: got %+v, want the zero Status", st)
	}
}

// fileStates returns the mode, size and modification time of each file below dir.
func fileStates(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	must(t, "reading the gold image", filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && !e.IsDir() {
			files[path] = fmt.Sprint(info.Mode(), info.ModTime(), info.Size())
		}
		return err
	}))
	return files
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
