package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// Each machine has a user of its own, also if the numbers collide, and keeps it when the daemon starts again. A machine
// of an earlier version keeps the one that it had.
func TestUsers(t *testing.T) {
	if !e2e.IsolateTest(t) { // only root gives machines users
		return
	}
	dir := t.TempDir()
	machine := func(id string) vm.Machine {
		m := vm.Machine{ID: id, Dir: filepath.Join(dir, id)}
		harness.Must(t, errors.Join(os.MkdirAll(m.Dir, 0o700), os.WriteFile(filepath.Join(m.Dir, machineFile), []byte("{}"), 0o600)))
		return m
	}
	of := func(u *users, m vm.Machine) int {
		t.Helper()
		user, err := u.of(m)
		if err != nil || user < firstUser || user >= firstUser+userCount {
			t.Fatalf("got user %#x, %v", user, err)
		}
		return user
	}
	old := machine("old")
	u, err := openUsers(dir)
	harness.Must(t, err)
	// The first one has the place of another, which has the place of the old one.
	u.taken[firstUserOf("a")] = "somebody"
	a, b := machine("a"), machine("b")
	userA, userB, userOld := of(u, a), of(u, b), of(u, old)
	if userOld != firstUserOf("old") || userB != firstUserOf("b") || userA != firstUserOf("a")+1 {
		t.Errorf("got users %#x, %#x and %#x, want the first ones of the machines, and for a the one after it", userA, userB, userOld)
	}
	again, err := openUsers(dir)
	harness.Must(t, err)
	for _, m := range []vm.Machine{a, b, old} {
		if got := of(again, m); got != of(u, m) || again.find(m) != got {
			t.Errorf("got user %#x of %s after a start, want still %#x", got, m.ID, of(u, m))
		}
	}
	again.free("b")
	harness.Must(t, os.RemoveAll(b.Dir))
	if again.find(b) != 0 {
		t.Error("a user is taken by a machine that is gone")
	}
	for _, text := range []string{"0\n", "x", fmt.Sprint(firstUser - 1), ""} {
		harness.Must(t, os.WriteFile(filepath.Join(a.Dir, userFile), []byte(text), 0o600))
		if user, err := again.of(a); err == nil {
			t.Errorf("got user %d from %q, want an error", user, text)
		}
	}
}
