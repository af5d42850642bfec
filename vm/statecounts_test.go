package vm_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// Machines are counted by their state, even those that cannot be read.
func TestStateCounts(t *testing.T) {
	h := newHarness(t).open()
	on, off, broken := h.wait(h.create(h.request()).ID), h.wait(h.create(h.request()).ID), h.wait(h.create(h.request()).ID)
	for _, v := range []vm.VM{on, off, broken} {
		h.delivered(v.ID) // and written down, so that no job replaces the broken record
	}
	must(t, h.driver.SetPower(vm.Machine{Dir: filepath.Join(h.dir, "vms", off.ID)}, vm.PoweredOff))
	must(t, os.WriteFile(filepath.Join(h.dir, "vms", broken.ID+".json"), []byte("{"), 0o600))
	check := func(want map[vm.State]int) {
		t.Helper()
		got, err := h.vms.StateCounts(t.Context())
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	check(map[vm.State]int{{Phase: vm.Ready, Status: vm.PoweredOn}: 1, {Phase: vm.Ready, Status: vm.PoweredOff}: 1, {Phase: vm.Unknown, Status: vm.Unknown}: 1})
	h.driver.Hook = func(_ context.Context, _ vmtest.Step, m vm.Machine) error {
		if m.ID == on.ID {
			return errors.New("a stalled lock")
		}
		return nil
	}
	check(map[vm.State]int{{Phase: vm.Ready, Status: vm.Unknown}: 1, {Phase: vm.Ready, Status: vm.PoweredOff}: 1, {Phase: vm.Unknown, Status: vm.Unknown}: 1})
	h.close()
	h.driver.Hook = nil
}

// The hooks get each creation once, and each of its phases, even if the daemon
// stops in the middle of it.
func TestHooks(t *testing.T) {
	h := newHarness(t)
	var mu sync.Mutex
	var calls []string
	add := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, s)
	}
	h.options = func(o *vm.Options) {
		o.Hooks = vm.Hooks{
			CreationEnded: func(c vm.Code) { add("created " + string(c)) },
			PhaseEnded:    func(p vm.Phase, took time.Duration) { add("phase ended " + string(p)) },
			CallbackTried: func(s vm.CallbackState) { add("called back " + string(s)) },
		}
	}
	reached := h.hold(vmtest.Start)
	id := h.open().create(h.request()).ID
	<-reached
	h.close()
	h.open()
	h.wait(id)
	h.callback()
	h.close()
	got := strings.Join(calls, ", ")
	const again = "phase ended accepted, phase ended cloning, phase ended starting, phase ended waiting, created , called back delivered"
	if !strings.HasPrefix(got, "phase ended accepted, phase ended downloading") || !strings.HasSuffix(got, again) || strings.Count(got, "created ") != 1 {
		t.Errorf("got %s, want the first run up to starting, and then %s", got, again)
	}
}

// The job of a machine logs the ID of its request even after a restart.
func TestRequestIDOutlivesTheDaemon(t *testing.T) {
	h := newHarness(t)
	var log bytes.Buffer
	h.options = func(o *vm.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	reached := h.hold(vmtest.Start)
	v, err := h.open().vms.Create(vm.WithRequestID(t.Context(), "build-7"), h.request(), "")
	must(t, err)
	<-reached
	h.close()
	log.Reset()
	h.open()
	h.wait(v.ID)
	h.callback()
	h.close()
	if want := "msg=ready vm=" + v.ID + " request_id=build-7"; !strings.Contains(log.String(), want) {
		t.Errorf("got log %s, want %q in it", log.String(), want)
	}
}
