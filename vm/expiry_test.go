package vm_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// At the end of its lifetime a machine's callback is sent while it still runs, and
// then it is destroyed.
func TestExpiry(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	q.ExpiresIn = vm.Lifetime(4 * time.Second) // longer than the creation takes on a busy host
	v := h.create(q)
	if v.ExpiresAt == nil || v.ExpiresAt.Sub(v.CreatedAt) != 4*time.Second {
		t.Errorf("expires_at: got %v, want 4 s after %v", v.ExpiresAt, v.CreatedAt)
	}
	if first := h.callback(); first.Phase != vm.Ready || first.ExpiresAt == nil {
		t.Errorf("first callback: got %+v, want ready with its end", first)
	}
	second := h.callback()
	if second.Phase != vm.Destroying || second.Error == nil || second.Error.Code != vm.CodeExpired || second.Status != vm.PoweredOn {
		t.Errorf("second callback: got %+v, want a machine that still runs, with %s", second, vm.CodeExpired)
	}
	if time.Now().Before(*v.ExpiresAt) {
		t.Errorf("callback before %v", v.ExpiresAt)
	}
	h.gone(v.ID)
	h.close()
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// gone waits until the machine does not exist any more.
func (h *harness) gone(id string) {
	h.t.Helper()
	for deadline := time.Now().Add(hangTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := h.vms.Get(h.t.Context(), id); codeOf(err) == vm.CodeNotFound {
			return
		}
	}
	h.t.Fatalf("machine %s is still there", id)
}

// A creation is cancelled at the end of the machine's lifetime, and one callback
// says so.
func TestExpiryDuringCreation(t *testing.T) {
	h := newHarness(t)
	h.hold(vmtest.Clone)
	q := h.request()
	q.ExpiresIn = vm.Lifetime(time.Second)
	v := h.open().create(q)
	if got := h.callback(); got.ID != v.ID || got.Error == nil || got.Error.Code != vm.CodeExpired {
		t.Errorf("callback: got %+v, want %s", got, vm.CodeExpired)
	}
	h.gone(v.ID)
	h.close()
	if n := h.received(); n != 1 || len(h.files()) != 0 {
		t.Errorf("got %d callbacks and files %v, want 1 and none", n, h.files())
	}
}

// The end of a lifetime survives restarts, even if it comes while no daemon runs,
// and if the receiver refuses the callback.
func TestExpirySurvivesRestart(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.callback()
	v = h.expire(v.ID, 2*time.Second)
	h.close()
	for time.Now().Before(*v.ExpiresAt) {
		time.Sleep(50 * time.Millisecond)
	}
	h.refuse.Store(1)
	h.open()
	h.gone(v.ID)
	if got := h.callback(); got.Error == nil || got.Error.Code != vm.CodeExpired {
		t.Errorf("callback: got %+v, want %s", got, vm.CodeExpired)
	}
}

// A machine that cannot be destroyed at the end of its lifetime can still be read.
func TestExpiryFails(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.fail(vmtest.Destroy, errors.New("the file is already in use"))
	h.expire(v.ID, time.Second)
	h.callback()
	h.callback()
	got, err := h.vms.Get(t.Context(), v.ID)
	if err != nil || got.Phase != vm.Destroying || got.Error == nil || got.Error.Code != vm.CodeExpired {
		t.Errorf("got %+v, %v, want destroying with %s", got, err, vm.CodeExpired)
	}
	if _, err := h.vms.Change(t.Context(), v.ID, vm.Change{ExpiresIn: in(time.Hour)}); codeOf(err) != vm.CodeDestroying {
		t.Errorf("Change: got %v, want %s", err, vm.CodeDestroying)
	}
	h.close()
	h.driver.Hook = nil
	h.open()
	h.gone(v.ID)
	if n := h.received(); n != 2 {
		t.Errorf("got %d callbacks, want 2", n)
	}
}

// A lifetime can be extended, even during the creation, and the job that writes
// the record later does not undo it.
func TestChange(t *testing.T) {
	h := newHarness(t)
	reached, release := make(chan struct{}), make(chan struct{})
	h.driver.Hook = func(_ context.Context, s vmtest.Step, _ vm.Machine) error {
		if s == vmtest.Clone {
			close(reached)
			<-release
		}
		return nil
	}
	h.options = func(o *vm.Options) { o.MaxLifetime = time.Hour }
	h.open()
	q := h.request()
	v := h.create(q)
	if v.ExpiresAt == nil || v.ExpiresAt.Sub(v.CreatedAt) != time.Hour {
		t.Errorf("by -max-lifetime: got %v, want 1 h after %v", v.ExpiresAt, v.CreatedAt)
	}
	<-reached
	_, err := h.vms.Change(t.Context(), v.ID, vm.Change{ExpiresIn: in(30 * time.Minute)})
	must(t, err)
	close(release)
	v = h.wait(v.ID)
	if left := time.Until(*v.ExpiresAt); left > 30*time.Minute || left < 29*time.Minute {
		t.Errorf("after Change: %v are left, want 30 minutes", left)
	}
	h.close()
	h.open()
	again, err := h.vms.Change(t.Context(), v.ID, vm.Change{ExpiresIn: in(1500 * time.Millisecond)})
	if err != nil || time.Until(*again.ExpiresAt) > 2*time.Second {
		t.Errorf("after the restart: got %v, %v, want an end in 2 s", again.ExpiresAt, err)
	}
	for name, d := range map[string]time.Duration{"none": 0, "negative": -1, "beyond the host's bound": time.Hour} {
		if _, err := h.vms.Change(t.Context(), v.ID, vm.Change{ExpiresIn: in(d)}); codeOf(err) != vm.CodeInvalidField {
			t.Errorf("%s: got %v, want %s", name, err, vm.CodeInvalidField)
		}
	}
	q.ExpiresIn = vm.Lifetime(2 * time.Hour)
	if _, err := h.vms.Create(t.Context(), q, ""); codeOf(err) != vm.CodeInvalidField {
		t.Errorf("Create beyond the bound: got %v, want %s", err, vm.CodeInvalidField)
	}
	h.gone(v.ID)
	if _, err := h.vms.Change(t.Context(), v.ID, vm.Change{ExpiresIn: in(1)}); codeOf(err) != vm.CodeNotFound {
		t.Errorf("once gone: got %v, want %s", err, vm.CodeNotFound)
	}
}

// expire gives a machine this lifetime, from now on.
func (h *harness) expire(id string, after time.Duration) vm.VM {
	h.t.Helper()
	v, err := h.vms.Change(h.t.Context(), id, vm.Change{ExpiresIn: in(after)})
	must(h.t, err)
	return v
}

// in is a change of the end of the lifetime.
func in(d time.Duration) vm.NewExpiry { return vm.NewExpiry{Given: true, After: vm.Lifetime(d)} }

// The end of a lifetime can be removed. If the host limits lifetimes, it moves to the limit.
func TestRemoveExpiry(t *testing.T) {
	h := newHarness(t).open()
	q := h.request()
	q.ExpiresIn = vm.Lifetime(4 * time.Second)
	v := h.create(q)
	got, err := h.vms.Change(t.Context(), v.ID, vm.Change{ExpiresIn: vm.NewExpiry{Given: true, Never: true}})
	if err != nil || got.ExpiresAt != nil {
		t.Fatalf("got %v, %v, want no end", got.ExpiresAt, err)
	}
	h.wait(v.ID)
	time.Sleep(time.Until(v.ExpiresAt.Add(50 * time.Millisecond)))
	if got, err := h.vms.Get(t.Context(), v.ID); err != nil || got.Phase != vm.Ready {
		t.Errorf("after the former end: got %s, %v, want ready", got.Phase, err)
	}
	h.close()
	h.options = func(o *vm.Options) { o.MaxLifetime = time.Hour }
	h.open()
	got, err = h.vms.Change(t.Context(), v.ID, vm.Change{ExpiresIn: vm.NewExpiry{Given: true, Never: true}})
	if err != nil || got.ExpiresAt == nil || got.ExpiresAt.Sub(got.CreatedAt).Round(time.Second) != time.Hour {
		t.Errorf("with a limit: got %v, %v, want 1 h after %v", got.ExpiresAt, err, got.CreatedAt)
	}
	if _, err := h.vms.Change(t.Context(), v.ID, vm.Change{}); codeOf(err) != vm.CodeInvalidField {
		t.Errorf("without an end: got %v, want %s", err, vm.CodeInvalidField)
	}
}

// A clock that was set back neither extends a machine's lifetime nor delays a
// callback.
func TestClockSetBack(t *testing.T) {
	h := newHarness(t)
	h.refuse.Store(1000)
	h.open()
	q := h.request()
	q.ExpiresIn = vm.Lifetime(time.Minute)
	v := h.wait(h.create(q).ID)
	h.close()
	h.edit(v.ID, func(r map[string]any) {
		ahead := time.Now().Add(10000 * time.Hour).UTC()
		r["expiry"].(map[string]any)["at"] = ahead
		r["messages"].([]any)[0].(map[string]any)["due_since"] = ahead
		r["messages"].([]any)[0].(map[string]any)["next_at"] = ahead
		r["created_at"], r["updated_at"] = ahead, ahead
	})
	h.refuse.Store(0)
	h.open()
	if got := h.callback(); got.ID != v.ID {
		t.Errorf("callback: got %+v", got)
	}
	got, err := h.vms.Get(t.Context(), v.ID)
	must(t, err)
	if left := time.Until(*got.ExpiresAt); left > time.Minute {
		t.Errorf("%v are left, want at most a minute", left)
	}
}

// A clock that is set back while the daemon runs does not extend a machine's
// lifetime.
func TestClockSetBackWhileRunning(t *testing.T) {
	h := newHarness(t).open()
	v := h.wait(h.create(h.request()).ID)
	h.delivered(v.ID)
	h.expire(v.ID, 4*time.Second)
	h.edit(v.ID, func(r map[string]any) {
		r["expiry"].(map[string]any)["at"] = time.Now().Add(10000 * time.Hour).UTC()
	})
	h.gone(v.ID)
}

// edit changes a record on disk.
func (h *harness) edit(id string, change func(map[string]any)) {
	h.t.Helper()
	path := filepath.Join(h.dir, "vms", id+".json")
	b, err := os.ReadFile(path)
	must(h.t, err)
	r := make(map[string]any)
	must(h.t, json.Unmarshal(b, &r))
	change(r)
	b, err = json.Marshal(r)
	must(h.t, err)
	must(h.t, os.WriteFile(path, b, 0o600))
}

func TestLifetimeForms(t *testing.T) {
	for text, want := range map[string]time.Duration{`0`: 0, `null`: 0, `90`: 90 * time.Second, `"90m"`: 90 * time.Minute} {
		var got vm.Lifetime
		if err := json.Unmarshal([]byte(text), &got); err != nil || time.Duration(got) != want {
			t.Errorf("%s: got %v, %v, want %v", text, time.Duration(got), err, want)
		}
	}
	var got vm.Lifetime
	if err := json.Unmarshal([]byte(`"soon"`), &got); codeOf(err) != vm.CodeInvalidField || !strings.Contains(err.Error(), "expires_in") {
		t.Errorf("soon: got %v, want %s that names expires_in", err, vm.CodeInvalidField)
	}
}
