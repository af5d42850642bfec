package vm_test

import (
	"testing"

	"osx-builder/vm"
)

// Owners, their keys and their quotas are the same after a restart.
func TestOwnersAfterRestart(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.PerOwner = vm.OwnerLimits{VMs: 1} }
	h.open()
	create := func(owner, name, key string) (vm.VM, error) {
		q := h.request()
		q.Owner, q.Name = owner, name
		return h.vms.Create(t.Context(), q, key)
	}
	mine, err := create("ci", "web", "k")
	must(t, err)
	theirs, err := create("other", "db", "k")
	must(t, err)
	h.wait(mine.ID)
	h.wait(theirs.ID)
	check := func(when string) {
		t.Helper()
		if again, err := create("ci", "web", "k"); err != nil || again.ID != mine.ID {
			t.Errorf("%s: the key of ci: got machine %s, %v, want %s", when, again.ID, err, mine.ID)
		}
		if _, err := create("other", "web", "k"); codeOf(err) != vm.CodeIdempotencyConflict {
			t.Errorf("%s: another request with the key of other: got %v, want %s", when, err, vm.CodeIdempotencyConflict)
		}
		if _, err := create("ci", "", ""); codeOf(err) != vm.CodeQuota {
			t.Errorf("%s: a second machine of ci: got %v, want %s", when, err, vm.CodeQuota)
		}
		for ref, want := range map[string]string{"web": mine.ID, mine.ID[:8]: mine.ID, mine.ID: mine.ID, "db": "", theirs.ID[:8]: "", theirs.ID: ""} {
			id, err := h.vms.Resolve(ref, vm.Owners{Name: "ci"})
			if id != want || (want == "") != (codeOf(err) == vm.CodeNotFound) {
				t.Errorf("%s: %s of ci: got %q, %v, want %q", when, ref, id, err, want)
			}
		}
		if _, err := h.vms.Resolve(mine.ID, vm.Owners{}); codeOf(err) != vm.CodeNotFound {
			t.Errorf("%s: nobody's machines: got %v, want %s", when, err, vm.CodeNotFound)
		}
	}
	check("at first")
	h.close()
	h.open()
	check("after a restart")
	must(t, h.vms.Destroy(t.Context(), mine.ID))
	if v, err := create("ci", "web", "k"); err != nil || v.ID == mine.ID {
		t.Errorf("after the machine was destroyed: got %s, %v, want another machine", v.ID, err)
	}
}
