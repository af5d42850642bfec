package vmtest

import (
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

	// Limit is how long one call, or the guest's boot, may take.
	Limit time.Duration
}

// TestDriver checks the contract of [vm.Driver], and those of [vm.Powerer],
// [vm.Screenshotter] and [vm.Consoler] if the driver has them.
func TestDriver(t *testing.T, h Harness) {
	tests := map[string]func(*testing.T, Harness){
		"a machine's life":                       life,
		"a machine that never existed":           neverMade,
		"repeated calls change nothing":          repeated,
		"another driver finds the machine":       reopened,
		"interrupted calls are finished":         interrupted,
		"an incomplete clone is replaced":        halfMade,
		"two machines share an image, not disks": twoMachines,
		"many readers at once":                   readers,
		"destroy while running, by ID and folder": func(t *testing.T, h Harness) {
			d, m := h.running(t)
			h.destroy(t, d, vm.Machine{ID: m.ID, Dir: m.Dir})
		},
		"destroy after the folder was removed by hand": folderRemoved,
		"a missing image":               missingImage,
		"power actions":                 powerActions,
		"interrupted power actions":     powerActionsInterrupted,
		"the screen":                    screen,
		"the console":                   console,
		"the host":                      host,
		"a sweep spares known machines": sweepKnown,
	}
	if h.Kill != nil {
		tests["a process that dies"] = died
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := tree(t, filepath.Dir(h.Gold))
			test(t, h)
			if diff := cmp.Diff(before, tree(t, filepath.Dir(h.Gold))); diff != "" {
				t.Errorf("the gold image changed (-before +after):\n%s", diff)
			}
		})
	}
}

// life creates, starts and destroys a machine.
func life(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.machine(t)
	ctx := h.context(t)
	must(t, "Clone", d.Clone(ctx, m, h.Gold))
	if st := h.inspect(t, d, m); st.Power != vm.PoweredOff || st.GuestOS != h.GuestOS || st.IP != "" || st.Up || st.StoppedBecause != "" || st.Died {
		t.Errorf("after Clone: got %+v, want powered-off, guest OS %q, no address and no reason", st, h.GuestOS)
	}
	must(t, "Start", d.Start(ctx, m))
	st := h.up(t, d, m)
	if st.Power != vm.PoweredOn || st.CPUs != m.CPUs || st.Memory != m.Memory || st.GuestOS != h.GuestOS || st.MAC == "" {
		t.Errorf("after Start: got %+v, want powered-on, %d CPUs, %d MiB, guest OS %q and a MAC", st, m.CPUs, m.Memory, h.GuestOS)
	}
	h.destroy(t, d, m)
}

func neverMade(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.machine(t)
	if st := h.inspect(t, d, m); !cmp.Equal(st, vm.Status{}) {
		t.Errorf("Inspect: got %+v, want the zero Status", st)
	}
	h.destroy(t, d, m)
}

func repeated(t *testing.T, h Harness) {
	d, m := h.running(t)
	ctx := h.context(t)
	must(t, "Clone of a running machine", d.Clone(ctx, m, h.Gold))
	must(t, "Start of a running machine", d.Start(ctx, m))
	if st := h.up(t, d, m); st.Power != vm.PoweredOn {
		t.Errorf("after the repeated calls: got %q, want powered-on", st.Power)
	}
	h.destroy(t, d, m)
	h.destroy(t, d, m)
}

// reopened checks that the driver keeps nothing only in memory.
func reopened(t *testing.T, h Harness) {
	d, m := h.running(t)
	before := h.up(t, d, m)
	d = h.Open(t)
	after := h.up(t, d, m)
	if before.MAC != after.MAC || after.Power != vm.PoweredOn || before.IP != after.IP {
		t.Errorf("got %+v from another driver, want %+v", after, before)
	}
	must(t, "Start", d.Start(h.context(t), m))
	h.destroy(t, d, m)
}

// interrupted cancels each call at once and after some time, and repeats it.
func interrupted(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.machine(t)
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
	if st := h.up(t, d, m); st.Power != vm.PoweredOn {
		t.Errorf("got %q, want powered-on", st.Power)
	}
	step("Destroy", func(ctx context.Context) error { return d.Destroy(ctx, m) })
	h.gone(t, d, m)
}

// halfMade leaves a folder as a crash of the host during Clone can.
func halfMade(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.machine(t)
	must(t, "making the folder", os.MkdirAll(filepath.Join(m.Dir, "half"), 0o700))
	must(t, "making a file", os.WriteFile(filepath.Join(m.Dir, "half", "made"), nil, 0o600))
	if st := h.inspect(t, d, m); st.Power != "" {
		t.Errorf("Inspect of a half-made clone: got %q, want no power state", st.Power)
	}
	ctx := h.context(t)
	must(t, "Clone", d.Clone(ctx, m, h.Gold))
	must(t, "Start", d.Start(ctx, m))
	h.up(t, d, m)
	h.destroy(t, d, m)
}

func twoMachines(t *testing.T, h Harness) {
	d, m := h.running(t)
	n := h.machine(t)
	ctx := h.context(t)
	must(t, "Clone", d.Clone(ctx, n, h.Gold))
	must(t, "Start", d.Start(ctx, n))
	one, two := h.up(t, d, m), h.up(t, d, n)
	if one.MAC == two.MAC {
		if _, fake := d.(*Driver); !fake {
			t.Errorf("two machines have one MAC: %s", one.MAC)
		}
	}
	h.destroy(t, d, m)
	if st := h.inspect(t, d, n); st.Power != vm.PoweredOn {
		t.Errorf("the second machine is %q after the first was destroyed, want powered-on", st.Power)
	}
	h.destroy(t, d, n)
}

func readers(t *testing.T, h Harness) {
	d, m := h.running(t)
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
	h.destroy(t, d, m)
}

// died kills the machine's process: every driver then knows that it died, and
// why, until it is started again.
func died(t *testing.T, h Harness) {
	d, m := h.running(t)
	h.Kill(t, m)
	h.power(t, d, m, vm.PoweredOff)
	for _, d := range []vm.Driver{d, h.Open(t)} {
		if st := h.inspect(t, d, m); st.StoppedBecause == "" || !st.Died {
			t.Errorf("got %+v after the process was killed, want that it died, and why", st)
		}
	}
	must(t, "Start after a death", d.Start(h.context(t), m))
	h.power(t, d, m, vm.PoweredOn)
	h.destroy(t, d, m)
}

func folderRemoved(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.machine(t)
	must(t, "Clone", d.Clone(h.context(t), m, h.Gold))
	must(t, "removing the folder", os.RemoveAll(m.Dir))
	h.destroy(t, d, m)
}

func missingImage(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.machine(t)
	if err := d.Clone(h.context(t), m, filepath.Join(t.TempDir(), "no.vmx")); err == nil {
		t.Error("Clone of a missing image: got no error")
	}
	if st := h.inspect(t, d, m); st.Power != "" {
		t.Errorf("after the failed Clone: got %q, want no power state", st.Power)
	}
	h.destroy(t, d, m)
}

// host reads what the driver says of the host.
func host(t *testing.T, h Harness) {
	d := h.Open(t)
	m := h.machine(t)
	if l := d.Limits(); l.CPUs < m.CPUs || l.Memory < m.Memory {
		t.Errorf("Limits: got %+v, want room for a machine of %d CPUs and %d MiB", l, m.CPUs, m.Memory)
	}
	must(t, "Ready", d.Ready(h.context(t)))
	for _, n := range []vm.NetworkType{vm.Bridged, vm.NAT, vm.HostOnly} {
		err := d.Network(n)
		if known, ok := errors.AsType[*vm.Error](err); err != nil && (!ok || known.Code != vm.CodeNetworkUnavailable || known.Message == "") {
			t.Errorf("Network(%s): got %v, want nil or a message with code %s", n, err, vm.CodeNetworkUnavailable)
		}
	}
	must(t, "Network("+string(m.Network)+")", d.Network(m.Network))
	for fact, value := range d.Describe(h.context(t)) {
		if fact == "" || value == "" {
			t.Errorf("Describe: got %q for %q, want both to say something", value, fact)
		}
	}
}

// sweepKnown sweeps as a daemon that starts does, while a machine runs.
func sweepKnown(t *testing.T, h Harness) {
	d, m := h.running(t)
	before := h.up(t, d, m)
	d = h.Open(t)
	must(t, "Sweep", d.Sweep(h.context(t), func(id string) bool { return id == m.ID }))
	if after := h.up(t, d, m); after.Power != vm.PoweredOn || after.MAC != before.MAC || after.IP != before.IP {
		t.Errorf("after Sweep: got %+v, want %+v", after, before)
	}
	h.destroy(t, d, m)
}

// machine returns a new machine. Its folder is removed with the test.
func (h Harness) machine(t *testing.T) vm.Machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmtest") // short: sockets will be in it
	must(t, "making a folder", err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	id := uuid.NewString()
	return vm.Machine{
		ID: id, Dir: filepath.Join(dir, id),
		CPUs: 2, Memory: 256, Network: vm.NAT, Annotation: "osx-builder conformance suite",
	}
}

// running returns a running machine.
func (h Harness) running(t *testing.T) (vm.Driver, vm.Machine) {
	t.Helper()
	d := h.Open(t)
	m := h.machine(t)
	t.Cleanup(func() { _ = d.Destroy(context.Background(), m) }) // if the test failed before
	must(t, "Clone", d.Clone(h.context(t), m, h.Gold))
	must(t, "Start", d.Start(h.context(t), m))
	return d, m
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
	if st.Power != vm.PoweredOff && (st.StoppedBecause != "" || st.Died) {
		t.Errorf("got %+v, want no reason of a stop while the machine is not off", st)
	}
	return st
}

// up waits for a sign of life of the guest.
func (h Harness) up(t *testing.T, d vm.Driver, m vm.Machine) vm.Status {
	t.Helper()
	ctx := h.context(t)
	for {
		st := h.inspect(t, d, m)
		if st.Up {
			return st
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no sign of life within %v; last seen: %+v", h.Limit, st)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// destroy destroys and checks that nothing is left.
func (h Harness) destroy(t *testing.T, d vm.Driver, m vm.Machine) {
	t.Helper()
	must(t, "Destroy", d.Destroy(h.context(t), m))
	h.gone(t, d, m)
}

func (h Harness) gone(t *testing.T, d vm.Driver, m vm.Machine) {
	t.Helper()
	if _, err := os.Lstat(m.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder %s is left after Destroy (%v)", m.Dir, err)
	}
	if st := h.inspect(t, d, m); !cmp.Equal(st, vm.Status{}) {
		t.Errorf("Inspect after Destroy: got %+v, want the zero Status", st)
	}
}

// tree returns the mode, size and modification time of each file below dir.
func tree(t *testing.T, dir string) map[string]string {
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
