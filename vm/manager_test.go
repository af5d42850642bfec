package vm_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A request becomes a machine, its callback is sent once, and its destruction
// leaves nothing.
func TestLife(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	q.CPUs, q.Memory = 3, "1GiB"
	v := h.create(q)
	if v.Phase != vm.Accepted || v.Status != "" || v.Memory != "1gib" || !vm.ValidID(v.ID) || v.Callback.State != vm.CallbackWaiting {
		t.Errorf("at once: got %+v", v)
	}
	v = h.wait(v.ID)
	if v.Phase != vm.Ready || v.Status != vm.PoweredOn || v.Memory != "1.0gib" || v.CPUs != 3 || v.IPAddress == "" || v.GuestOS != "other" {
		t.Errorf("later: got %+v", v)
	}
	posted := h.callback()
	if diff := cmp.Diff(v, posted, cmpopts.IgnoreFields(vm.VM{}, "Callback")); diff != "" {
		t.Errorf("the callback's document differs from GET's (-GET +callback):\n%s", diff)
	}
	must(t, h.vms.Destroy(t.Context(), v.ID))
	if names := h.files(); len(names) != 0 {
		t.Errorf("left after Destroy: %v", names)
	}
	if _, err := h.vms.Get(t.Context(), v.ID); codeOf(err) != vm.CodeNotFound {
		t.Errorf("Get after Destroy: got %v, want %s", err, vm.CodeNotFound)
	}
	if n := h.received(); n != 1 {
		t.Errorf("got %d callbacks, want 1", n)
	}
}

// Each Get reads the live state from the hypervisor.
func TestStateIsLive(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	m := vm.Machine{ID: v.ID, Dir: filepath.Join(h.dir, "vms", v.ID)}
	for _, p := range []vm.Power{vm.PoweredOff, vm.Suspended, vm.PoweredOn} {
		must(t, h.driver.SetPower(m, p))
		got, err := h.vms.Get(t.Context(), v.ID)
		must(t, err)
		if got.Status != p || got.Phase != vm.Ready {
			t.Errorf("got %s, %s, want %s, ready", got.Status, got.Phase, p)
		}
	}
}

// A machine can be destroyed in each phase, and its callback says so.
func TestDestroyInEachPhase(t *testing.T) {
	for _, step := range []vmtest.Step{"download", vmtest.Clone, vmtest.Start, vmtest.Inspect} {
		t.Run(string(step), func(t *testing.T) {
			h := newHarness(t)
			reached := h.hold(step)
			v := h.open().create(h.request())
			<-reached
			must(t, h.vms.Destroy(t.Context(), v.ID))
			posted := h.callback()
			if posted.ID != v.ID || posted.Error == nil || posted.Error.Code != vm.CodeCancelled || posted.Phase != vm.Destroying {
				t.Errorf("callback: got %+v, want %s", posted, vm.CodeCancelled)
			}
			h.close()
			if names := h.files(); len(names) != 0 {
				t.Errorf("left after Destroy: %v", names)
			}
		})
	}
}

// hold makes the first call of a step wait for its cancellation.
func (h *harness) hold(step vmtest.Step) (reached chan struct{}) {
	reached = make(chan struct{})
	var once sync.Once
	block := func(ctx context.Context) {
		first := false
		once.Do(func() { first = true; close(reached) })
		if first {
			<-ctx.Done()
		}
	}
	if step == "download" {
		h.serve = func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(h.archive[:10])
			_ = http.NewResponseController(w).Flush()
			block(r.Context())
			panic(http.ErrAbortHandler)
		}
	}
	h.driver.Hook = func(ctx context.Context, s vmtest.Step, _ vm.Machine) error {
		if s == step {
			block(ctx)
		}
		return nil
	}
	return reached
}

// After a stop in any phase the next daemon continues the creation. Nothing is
// created and no callback is sent twice.
func TestRestartInEachPhase(t *testing.T) {
	for _, step := range []vmtest.Step{"download", vmtest.Clone, vmtest.Start, vmtest.Inspect} {
		t.Run(string(step), func(t *testing.T) {
			h := newHarness(t)
			reached := h.hold(step)
			v := h.open().create(h.request())
			<-reached
			h.close()
			h.serve = nil
			h.open()
			if v = h.wait(v.ID); v.Phase != vm.Ready || v.Status != vm.PoweredOn {
				t.Errorf("after the restart: got %+v, want ready and powered-on", v)
			}
			h.callback()
			h.close()
			h.open()
			if n := h.received(); n != 1 {
				t.Errorf("got %d callbacks, want 1", n)
			}
		})
	}
}

// A stop while the callback of a machine that is ready is written does not make
// the callback say that the machine cannot be read.
func TestStopWhileCallbackIsWritten(t *testing.T) {
	for phase, failing := range map[vm.Phase]vmtest.Step{vm.Ready: "", vm.Failed: vmtest.Start} {
		t.Run(string(phase), func(t *testing.T) {
			h := newHarness(t)
			reached := make(chan struct{})
			var built, blocked atomic.Bool
			h.driver.Hook = func(ctx context.Context, s vmtest.Step, m vm.Machine) error {
				switch {
				case s == failing && !blocked.Load():
					built.Store(true)
					return errors.New("broken")
				case s == failing:
					return errors.New("broken again")
				case s == vmtest.Inspect && !built.Swap(true): // the guest is up
				case s == vmtest.Inspect && !blocked.Swap(true):
					close(reached)
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
			id := h.open().create(h.request()).ID
			<-reached
			h.close()
			h.open()
			v := h.callback()
			if v.ID != id || v.Phase != phase || (v.Error != nil && v.Error.Code == vm.CodeOpen) {
				t.Errorf("callback: got %s, %+v, want %s without %s", v.Phase, v.Error, phase, vm.CodeOpen)
			}
		})
	}
}

// The next start finishes an interrupted destruction.
func TestRestartWhileDestroying(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.callback()
	reached := h.hold(vmtest.Destroy)
	failed := make(chan error)
	go func() { failed <- h.vms.Destroy(context.Background(), v.ID) }()
	<-reached
	h.close()
	if err := <-failed; codeOf(err) != vm.CodeShuttingDown {
		t.Errorf("Destroy: got %v, want %s", err, vm.CodeShuttingDown)
	}
	h.open()
	if err := h.vms.Destroy(t.Context(), v.ID); err != nil && codeOf(err) != vm.CodeNotFound {
		t.Errorf("Destroy again: got %v, want nil or %s", err, vm.CodeNotFound)
	}
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

func TestDestroyTwiceAtOnce(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := h.vms.Destroy(t.Context(), v.ID); err != nil && codeOf(err) != vm.CodeNotFound {
				t.Errorf("got %v, want nil or %s", err, vm.CodeNotFound)
			}
		})
	}
	wg.Wait()
	if err := h.vms.Destroy(t.Context(), v.ID); codeOf(err) != vm.CodeNotFound {
		t.Errorf("once gone: got %v, want %s", err, vm.CodeNotFound)
	}
}

// A destruction that fails says why. The machine can still be read, and another
// destruction works.
func TestDestroyFailsAndIsRepeated(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.driver.Hook = func(_ context.Context, s vmtest.Step, _ vm.Machine) error {
		if s == vmtest.Destroy {
			return errors.New("the file is already in use")
		}
		return nil
	}
	err := h.vms.Destroy(t.Context(), v.ID)
	if codeOf(err) != vm.CodeHypervisor || !strings.Contains(err.Error(), "already in use") {
		t.Errorf("got %v, want %s with the hypervisor's reason", err, vm.CodeHypervisor)
	}
	got, err := h.vms.Get(t.Context(), v.ID)
	if err != nil || got.Phase != vm.Destroying {
		t.Errorf("Get: got %s, %v, want destroying", got.Phase, err)
	}
	h.driver.Hook = nil
	must(t, h.vms.Destroy(t.Context(), v.ID))
}

// A creation that fails says why, in GET and in the callback, and leaves only its
// record.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(*harness, *vm.Request)
		want   vm.Code
	}{
		"wrong checksum":    {func(_ *harness, q *vm.Request) { q.Image.Checksum = strings.Repeat("0", 64) }, vm.CodeImageChecksum},
		"no such image":     {func(_ *harness, q *vm.Request) { q.Image.URL += "x" }, vm.CodeImageDownload},
		"not an archive":    {func(h *harness, q *vm.Request) { h.archive = []byte("hello"); q.Image = h.request().Image }, vm.CodeImageInvalid},
		"clone fails":       {func(h *harness, _ *vm.Request) { h.fail(vmtest.Clone, errors.New("no")) }, vm.CodeHypervisor},
		"start fails":       {func(h *harness, _ *vm.Request) { h.fail(vmtest.Start, errors.New("no")) }, vm.CodeHypervisor},
		"start says why":    {func(h *harness, _ *vm.Request) { h.fail(vmtest.Start, &vm.Error{Code: vm.CodeDiskFull}) }, vm.CodeDiskFull},
		"driver panics":     {func(h *harness, _ *vm.Request) { h.fail(vmtest.Start, nil) }, vm.CodeInternal},
		"guest stops":       {func(h *harness, _ *vm.Request) { h.stopGuest() }, vm.CodeGuestStopped},
		"never readable":    {func(h *harness, q *vm.Request) { h.failReads(); q.ToolsInitTimeout = vm.Timeout(time.Second) }, vm.CodeHypervisor},
		"full disk (POSIX)": {func(h *harness, _ *vm.Request) { h.fail(vmtest.Clone, fmt.Errorf("copying: %w", syscall.ENOSPC)) }, vm.CodeDiskFull},
		"exceeded quota":    {func(h *harness, _ *vm.Request) { h.fail(vmtest.Clone, fmt.Errorf("copying: %w", syscall.EDQUOT)) }, vm.CodeDiskFull},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t).open()
			q := h.request()
			c.break_(h, &q)
			v := h.create(q)
			v = h.wait(v.ID)
			if v.Phase != vm.Failed || v.Error == nil || v.Error.Code != c.want || v.Status != "" {
				t.Errorf("got phase %s, error %+v, want failed with %s", v.Phase, v.Error, c.want)
			}
			if posted := h.callback(); posted.Error == nil || posted.Error.Code != c.want || posted.Phase != vm.Failed {
				t.Errorf("callback: got %+v, want %s", posted.Error, c.want)
			}
			h.close() // the state of the callback is written by then
			if names := h.files(); !slices.Equal(names, []string{v.ID + ".json"}) {
				t.Errorf("left: %v, want the record alone", names)
			}
			h.open()
			must(t, h.vms.Destroy(t.Context(), v.ID))
		})
	}
}

// fail makes a step fail; without an error it panics.
func (h *harness) fail(step vmtest.Step, err error) {
	h.driver.Hook = func(_ context.Context, s vmtest.Step, _ vm.Machine) error {
		if s == step && err == nil {
			panic("driver out of order")
		}
		if s == step {
			return err
		}
		return nil
	}
}

func (h *harness) stopGuest() {
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		if s == vmtest.Inspect {
			_ = h.driver.SetPower(m, vm.PoweredOff) // fails before there is a clone
		}
		return nil
	}
}

// failReads makes Inspect fail while the machine exists.
func (h *harness) failReads() {
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		if _, err := os.Stat(m.Dir); s == vmtest.Inspect && err == nil {
			return errors.New("locked")
		}
		return nil
	}
}

// A machine whose guest never answers is ready once its timeout is over.
func TestSilentGuestIsReady(t *testing.T) {
	h := newHarness(t)
	h.driver.Silent = true
	h.open()
	q := h.request()
	q.ToolsInitTimeout = vm.Timeout(time.Second)
	if v := h.wait(h.create(q).ID); v.Phase != vm.Ready || v.IPAddress != "" || v.ToolsInitTimeout != 1 {
		t.Errorf("got %+v, want ready without an address", v)
	}
}

// A machine that exists but cannot be read is an error for Get, and has an error
// in a list.
func TestUnreadableMachine(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.fail(vmtest.Inspect, errors.New("a lock is held"))
	if _, err := h.vms.Get(t.Context(), v.ID); codeOf(err) != vm.CodeOpen || !strings.Contains(err.Error(), "a lock is held") {
		t.Errorf("Get: got %v, want %s", err, vm.CodeOpen)
	}
	list, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
	if err != nil || len(list) != 1 || list[0].Error == nil || list[0].Error.Code != vm.CodeOpen {
		t.Errorf("List: got %+v, %v, want one entry with %s", list, err, vm.CodeOpen)
	}
}

// Files and folders without a record are removed.
func TestLitterIsSwept(t *testing.T) {
	h := newHarness(t)
	id := uuid.NewString()
	m := vm.Machine{ID: id, Dir: filepath.Join(h.dir, "vms", id)}
	must(t, os.MkdirAll(m.Dir, 0o700))
	must(t, os.WriteFile(filepath.Join(h.dir, "vms", "."+id+".json123"), nil, 0o600))
	destroyed := make(chan vm.Machine, 1)
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		if s == vmtest.Destroy {
			destroyed <- m
		}
		return nil
	}
	h.open()
	if got := <-destroyed; !reflect.DeepEqual(got, m) {
		t.Errorf("destroyed %+v, want %+v", got, m)
	}
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// A creation during which the daemon ended three times is not tried again.
func TestAttemptsAreBounded(t *testing.T) {
	h := newHarness(t)
	reached := h.hold(vmtest.Clone)
	v := h.open().create(h.request())
	<-reached
	h.close()
	path := filepath.Join(h.dir, "vms", v.ID+".json")
	b, err := os.ReadFile(path)
	must(t, err)
	if !strings.Contains(string(b), `"attempts": 0`) {
		t.Errorf("an orderly stop counted as an attempt:\n%s", b)
	}
	must(t, os.WriteFile(path, []byte(strings.Replace(string(b), `"attempts": 0`, `"attempts": 3`, 1)), 0o600))
	h.open()
	if v = h.wait(v.ID); v.Phase != vm.Failed || v.Error.Code != vm.CodeAttempts {
		t.Errorf("got %s, %+v, want failed with %s", v.Phase, v.Error, vm.CodeAttempts)
	}
	h.callback()
}

// Only DELETE repeats a destruction during which the daemon ended three times. One
// that failed in another way is tried again at each start.
func TestAttemptsToDestroyAreBounded(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	q.ExpiresIn = vm.Lifetime(time.Hour)
	v := h.wait(h.create(q).ID)
	h.callback()
	h.fail(vmtest.Destroy, errors.New("the file is already in use"))
	if err := h.vms.Destroy(t.Context(), v.ID); err == nil {
		t.Error("Destroy: got no error, want one")
	}
	for range 5 {
		h.close()
		h.open()
	}
	h.close()
	h.edit(v.ID, func(r map[string]any) {
		if n := r["attempts"]; n != float64(0) {
			t.Errorf("destructions that failed counted as attempts: %v", n)
		}
	})
	h.edit(v.ID, func(r map[string]any) { r["attempts"], r["expiry"].(map[string]any)["at"] = 3, time.Now() })
	reached := h.hold(vmtest.Destroy)
	h.open()
	select {
	case <-reached:
		t.Fatal("the fourth daemon tried by itself")
	case <-time.After(300 * time.Millisecond): // it would have started by then
	}
	h.driver.Hook = nil
	must(t, h.vms.Destroy(t.Context(), v.ID))
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// A callback that is refused is tried again, even by the next daemon.
func TestCallbackSurvivesRestart(t *testing.T) {
	h := newHarness(t)
	h.refuse.Store(2)
	h.open()
	v := h.wait(h.create(h.request()).ID)
	h.close()
	h.open()
	if posted := h.callback(); posted.ID != v.ID || posted.Phase != vm.Ready {
		t.Errorf("callback: got %+v", posted)
	}
}

func TestCreationsAreBounded(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Creations = 2 }
	reached := h.hold(vmtest.Clone)
	h.open()
	first := h.create(h.request())
	<-reached
	h.hold(vmtest.Clone)
	second := h.create(h.request())
	if _, err := h.vms.Create(t.Context(), h.request(), ""); codeOf(err) != vm.CodeBusy {
		t.Errorf("the third: got %v, want %s", err, vm.CodeBusy)
	}
	must(t, h.vms.Destroy(t.Context(), first.ID))
	must(t, h.vms.Destroy(t.Context(), second.ID))
	h.driver.Hook = nil
	if v := h.wait(h.create(h.request()).ID); v.Phase != vm.Ready {
		t.Errorf("after another creation ended: got %s, want ready", v.Phase)
	}
}

// Many machines of one image need one download, and are listed oldest first.
func TestManyAtOnce(t *testing.T) {
	h := newHarness(t).open()
	var ids []string
	for range 8 {
		ids = append(ids, h.create(h.request()).ID)
	}
	for _, id := range ids {
		if v := h.wait(id); v.Phase != vm.Ready {
			t.Errorf("%s: got %s (%+v), want ready", id, v.Phase, v.Error)
		}
	}
	list, err := h.vms.List(t.Context(), vm.Filter{Phase: vm.Ready, Status: vm.PoweredOn}, everyone)
	must(t, err)
	var listed []string
	for _, v := range list {
		listed = append(listed, v.ID)
	}
	if !slices.Equal(listed, ids) {
		t.Errorf("List: got %v, want %v", listed, ids)
	}
	if list, err = h.vms.List(t.Context(), vm.Filter{Status: vm.PoweredOff}, everyone); err != nil || len(list) != 0 {
		t.Errorf("List of those powered off: got %v, %v, want none", list, err)
	}
	if n := h.downloads.Load(); n != 1 {
		t.Errorf("got %d downloads, want 1", n)
	}
}

func codeOf(err error) vm.Code {
	var e *vm.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
