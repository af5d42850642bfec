package qemu_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest/harness"
)

// memoryHost is a host with managed networks whose machines start from memory.
type memoryHost struct {
	*testDriver
	options qemu.Options
	gold    string // .vmx
}

func newMemoryHost(t *testing.T, variant string) *memoryHost {
	t.Helper()
	h := &memoryHost{testDriver: newTestDriver(t)}
	h.gold = h.unpacked(variant)
	// The image cache has each image in a folder of its own.
	image := filepath.Join(h.data, "gold", "sha1-1")
	if err := errors.Join(os.Mkdir(image, 0o700), os.Rename(filepath.Dir(h.gold), filepath.Join(image, "tinyvm"))); err != nil {
		t.Fatal(err)
	}
	h.gold = filepath.Join(image, "tinyvm", filepath.Base(h.gold))
	h.options = options(h.data)
	h.options.Network, h.options.Gold = "bridge", filepath.Join(h.data, "gold")
	h.options.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	h.reopen(t)
	t.Cleanup(func() {
		if err := qemu.CleanNetworks(context.Background(), h.options); err != nil {
			t.Error(err)
		}
	})
	return h
}

// reopen restarts the daemon.
func (h *memoryHost) reopen(t *testing.T) {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := openDriver(h.options)
	if err != nil {
		t.Fatal(err)
	}
	h.testDriver.Driver = d
}

// create makes a machine that is to start from memory, and waits until it is up.
func (h *memoryHost) create(t *testing.T) (vm.Machine, vm.Status) {
	t.Helper()
	m := h.clone(t)
	h.with(t).start(m)
	return m, h.up(t, m)
}

// clone makes a machine that is to start from memory.
func (h *memoryHost) clone(t *testing.T) vm.Machine {
	t.Helper()
	m := h.with(t).machine()
	m.Memory, m.Start = 256, vm.StartMemory
	h.with(t).clone(m, h.gold)
	return m
}

// interrupt calls f several times, and ends each call wherever it is.
func interrupt(t *testing.T, f func(context.Context) error) {
	for limit := time.Millisecond; limit < 100*time.Millisecond; limit *= 3 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_ = f(ctx)
		cancel()
	}
}

func (h *memoryHost) up(t *testing.T, m vm.Machine) (st vm.Status) {
	t.Helper()
	until(t, harness.Timeout, "the guest's address", func() bool {
		st = h.with(t).inspect(m)
		return st.Up && st.IP != ""
	})
	return st
}

// template waits for the template, whose guest has an agent, and returns its key.
func (h *memoryHost) template(t *testing.T) string {
	t.Helper()
	var list []vm.Template
	until(t, harness.Timeout, "a template", func() bool {
		harness.Hurry(h.data)
		var err error
		if list, err = h.Templates(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(list) == 1
	})
	if !list[0].Agent {
		t.Errorf("got the template %+v, want one whose guest has an agent", list[0])
	}
	return list[0].Key
}

// Machines start from the memory of a template, each with its own identity, and
// become ordinary ones when their guests restart. CLONES is how many there are at once.
func TestStartFromMemory(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	if !inNamespace(t) {
		return
	}
	internet := newInternet(t)
	internet.takeUploads(t)
	h := newMemoryHost(t, "tinyvm-lsisas.tar.gz") // whose kernel knows vmgenid
	_, st := h.create(t)
	if st.Start == vm.StartMemory || !booted(st, "being made") {
		t.Fatalf("the first machine: got %+v, want a boot and a warning with the reason", st)
	}
	key := h.template(t)
	frozen := h.files(t, key)
	type clone struct {
		vm.Machine
		vm.Status
	}
	var clones []clone
	seen := map[string]bool{st.IP: true, st.MAC: true}
	for range harness.EnvInt(t, "CLONES", 3) {
		began := time.Now()
		m, st := h.create(t)
		t.Logf("from memory after %v", time.Since(began))
		if st.Start != vm.StartMemory || seen[st.IP] || seen[st.MAC] || seen[m.ID] || booted(st, "") || !slices.Equal(st.Addresses, []string{st.IP}) {
			t.Errorf("got %+v, want a start from memory with an identity of its own", st)
		}
		seen[st.IP], seen[st.MAC], seen[m.ID] = true, true, true
		until(t, harness.Timeout, "the agent of a clone", func() bool { return h.inspect(m).Tools == vm.ToolsRunning })
		clones = append(clones, clone{m, st})
	}
	for _, c := range clones {
		until(t, harness.Timeout, "the page of a clone", func() bool { _, ok := served("http://" + c.IP + "/"); return ok })
		if who := guestAwait(t, c.Machine, internetIP+":80"); who != hostOutside {
			t.Errorf("the internet saw %q, want %s", who, hostOutside)
		}
		if c.ID != clones[0].ID {
			guestAwait(t, c.Machine, clones[0].IP+":80")
		}
		random := inGuest(t, c.Machine, "head -c 16 /dev/urandom | od -An -tx1")
		if seen[random] || len(random) < 32 {
			t.Errorf("a clone drew the random numbers %q, want others than each other clone", random)
		}
		seen[random] = true
		h.inspect(c.Machine) // connects to the agent again, which otherwise looks for a client all the time
	}
	refusesAtOnce(t, clones[0].IP)
	host := exec.Command("ip", "link", "set", "outside", "mtu", "1200")
	if out, err := host.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := inGuest(t, clones[1].Machine, fmt.Sprintf("head -c %d /dev/zero | nc -w 60 %s %s", uploadSize, internetIP, uploadPort)); got != "all" {
		t.Errorf("an upload over a narrow path was answered with %q, want %q", got, "all")
	}
	machines := make([]vm.Machine, 0, len(clones))
	for _, c := range clones {
		machines = append(machines, c.Machine)
	}
	wantWithinPromise(t, machines...)
	t.Run("nothing stays of those that are destroyed", h.comesAndGoes)
	t.Run("what a clone writes stays its own", h.writesAll)
	wantSealed(t, h.data, key)
	t.Run("a machine renews its identity", h.renewsIdentity)
	t.Run("while its agent sets the clock, a machine shows its address", func(t *testing.T) { h.setsClock(t, clones[0].Machine) })
	t.Run("a restart of the guest gives it its own identity", func(t *testing.T) {
		c := clones[0]
		restart(t, c.Machine)
		until(t, harness.Timeout, "an ordinary machine", func() bool {
			st, err := h.Inspect(t.Context(), c.Machine)
			return err == nil && st.Power == vm.PoweredOn && st.Start != vm.StartMemory && st.IP == c.IP
		})
		until(t, harness.Timeout, "its page", func() bool {
			page, ok := served("http://" + c.IP + "/")
			return ok && strings.Contains(page, c.MAC)
		})
	})
	t.Run("so does off and on, and a reset", func(t *testing.T) {
		c := clones[1]
		if err := h.Power(t.Context(), c.Machine, vm.ActionReset); err != nil {
			t.Fatal(err)
		}
		if got := h.up(t, c.Machine); got.Start == vm.StartMemory || got.IP != c.IP || got.MAC != c.MAC {
			t.Errorf("after a reset: got %+v, want the same identity as an ordinary machine", got)
		}
	})
	t.Run("after a restart of the daemon machines start from memory again", func(t *testing.T) {
		h.reopen(t)
		if _, st := h.create(t); st.Start != vm.StartMemory {
			t.Errorf("got %+v, want a start from memory", st)
		}
		restart(t, clones[2].Machine)
		until(t, harness.Timeout, "an ordinary machine", func() bool {
			st, err := h.Inspect(t.Context(), clones[2].Machine)
			return err == nil && st.Power == vm.PoweredOn && st.Start != vm.StartMemory && st.IP == clones[2].IP
		})
	})
	if got := h.files(t, key); got != frozen {
		t.Errorf("the template changed:\n%s\nwas\n%s", got, frozen)
	}
	t.Run("a QEMU that a guest took over cannot change the template", func(t *testing.T) { h.hostileClone(t, key) })
	t.Run("an interrupted start begins again", func(t *testing.T) {
		m := h.clone(t)
		interrupt(t, func(ctx context.Context) error { return h.Start(ctx, m) })
		h.with(t).start(m)
		st := h.up(t, m)
		until(t, harness.Timeout, "its page", func() bool { _, ok := served("http://" + st.IP + "/"); return ok })
		if n := processes(t, m); n != 1 {
			t.Errorf("it has %d processes, want one", n)
		}
	})
	t.Run("a disk of another size than the image's makes it boot", func(t *testing.T) {
		m := h.with(t).machine()
		m.Memory, m.Start, m.Disk = 256, vm.StartMemory, 1<<30
		h.with(t).clone(m, h.gold)
		if st := h.with(t).inspect(m); !booted(st, "disk asks for a size") {
			t.Errorf("got %+v, want a warning with the reason", st)
		}
	})
	waits := testPreload(t, h)
	t.Run("a state that QEMU refuses makes it boot", func(t *testing.T) {
		path := filepath.Join(h.data, "templates", key, "state")
		if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("no state"), 0o400)); err != nil {
			t.Fatal(err)
		}
		m, st := h.create(t)
		if st.Start == vm.StartMemory || !booted(st, "loading the memory") || processes(t, m) != 1 {
			t.Errorf("got %+v, want a boot and a warning with the reason", st)
		}
		if left, _ := filepath.Glob(filepath.Join(m.Dir, "frozen*")); len(left) > 0 {
			t.Errorf("it still has %q", left)
		}
	})
	if err := h.RemoveTemplate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.RemoveTemplate(t.Context(), key), vm.CodeTemplateNotFound, key)
	wantCode(t, h.Preload(t.Context(), waits), vm.CodeHypervisor, "was not prepared", "no such template")
}

// restart makes the guest restart by itself. Its agent may end before it has said that the command ran, so callers wait
// for what the restart leads to.
func restart(t *testing.T, m vm.Machine) {
	t.Helper()
	_, err := guestExec(t, m, busybox, "reboot", "-f")
	t.Logf("asking the guest to restart: %v", err)
}

// booted reports whether the machine has the warning that it booted, with words.
func booted(st vm.Status, words string) bool {
	return slices.ContainsFunc(st.Warnings, func(w vm.Warning) bool {
		return w.Code == vm.WarningBooted && strings.Contains(w.Message, words)
	})
}

// files returns the checksums of a template's files.
func (h *memoryHost) files(t *testing.T, key string) string {
	t.Helper()
	dir := filepath.Join(h.data, "templates", key)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var sums []string
	for _, e := range entries {
		sums = append(sums, e.Name()+" "+sumOf(t, filepath.Join(dir, e.Name())))
	}
	return strings.Join(sums, "\n")
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
