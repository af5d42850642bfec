package qemu_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// A machine whose QEMU an earlier version of the daemon started is found, switched off and started again. That QEMU locks
// its pid file itself, opened its files by their names, and its machine has no user written down.
func TestMachineOfEarlierVersion(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, plain...))
	cmd := exec.Command("qemu-system-x86_64", strings.Fields("-name guest=osxb-"+m.ID+" -uuid "+m.ID+
		" -nodefaults -display none -machine pc,accel=tcg -m 64 -pidfile pid -chardev socket,id=qmp,path=qmp,server=on,wait=off"+
		" -mon chardev=qmp,mode=control -chardev socket,id=qga,path=qga,server=on,wait=off")...)
	cmd.Dir = m.Dir
	harness.Must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	until(t, harness.Timeout, "QEMU's lock", func() bool { return processIn(m) == cmd.Process.Pid })
	if st := r.inspect(m); st.Power != vm.PoweredOn {
		t.Errorf("got %+v, want a machine that runs", st)
	}
	r.start(m)
	if got := pidOf(t, m); got != cmd.Process.Pid {
		t.Errorf("Start started process %d beside the one that runs", got)
	}
	r.press(m, vm.ActionOff)
	if st := r.inspect(m); st.Power != vm.PoweredOff {
		t.Errorf("got %+v, want a machine that is off", st)
	}
	if _, err := os.Lstat(filepath.Join(m.Dir, "user")); err == nil {
		t.Error("the machine has a user before this version started it")
	}
	r.start(m)
	until(t, harness.Timeout, "a booted guest", func() bool { return strings.Contains(serial(m), "OK") })
}
