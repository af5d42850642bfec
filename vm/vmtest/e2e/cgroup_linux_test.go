package e2e_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

// In a delegated control group, as systemd gives it to the unit from version 254 on, each machine has a group of its own,
// which outlives the daemon and ends with the machine, together with every process in it.
func TestControlGroups(t *testing.T) {
	t.Parallel()
	group := delegateGroup(t)
	s := harness.NewProgram(t, inGroup(t, filepath.Join(group, "daemon")), nil, "-network", "user", "-forward", "80")
	a, err := s.Do("GET", "/healthz?verbose=1", "", nil)
	harness.Must(t, err)
	if text := string(a.Body); !strings.Contains(text, "; control group of its own") {
		t.Errorf("got %s, want a control group of its own", text)
	}
	v := s.WaitReady(s.Create(s.Image(harness.TinyVM).Body(harness.SmallVM(nil))).ID)
	own := filepath.Join(group, "vm-"+v.ID)
	checkMembers(t, own, v.ID)
	checkLimits(t, group, own)

	empty := filepath.Join(group, "vm-left")
	harness.Must(t, os.Mkdir(empty, 0o755))
	harness.Must(t, s.Kill())
	s.Start()
	if _, err := os.Stat(empty); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty group that was left: got %v, want it removed", err)
	}
	if got := s.Get(v.ID); got.Status != vm.PoweredOn {
		t.Errorf("after the daemon was killed: got %+v, want powered-on", got)
	}
	checkMembers(t, own, v.ID)

	left := exec.Command("sleep", "infinity")
	fd, err := unix.Open(own, unix.O_PATH|unix.O_DIRECTORY, 0)
	harness.Must(t, err)
	defer unix.Close(fd)
	left.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	harness.Must(t, left.Start())
	s.Destroy(v.ID)
	if err := left.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a process in the machine's group: got %v, want it killed", err)
	}
	if _, err := os.Stat(own); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group of a machine that is gone: got %v, want it removed", err)
	}
}

// delegateGroup returns the path of a group that has the empty group daemon in it.
func delegateGroup(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "cgroup")
	harness.Must(t, os.Mkdir(root, 0o755))
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
		harness.Without(t, fmt.Sprintf("this test needs cgroup v2: %v", err))
	}
	t.Cleanup(func() { harness.Must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	text, err := os.ReadFile("/proc/self/cgroup")
	harness.Must(t, err)
	group := root
	for line := range strings.Lines(string(text)) {
		if path, is := strings.CutPrefix(strings.TrimSpace(line), "0::"); is {
			group = filepath.Join(root, path, fmt.Sprint("osxb-test-", os.Getpid()))
		}
	}
	harness.Must(t, os.MkdirAll(filepath.Join(group, "daemon"), 0o755))
	t.Cleanup(func() {
		harness.Must(t, errors.Join(os.Remove(filepath.Join(group, "daemon")), os.Remove(group)))
	})
	return group
}

// inGroup returns a program that runs the daemon in a control group.
func inGroup(t *testing.T, group string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "osx-builder")
	script := fmt.Sprintf("#!/bin/sh\necho $$ >'%s/cgroup.procs' && exec '%s' \"$@\"\n", group, harness.Binary(t))
	vmtest.WriteProgram(t, program, script)
	return program
}

// checkMembers checks that the machine's QEMU is in its group, with what watches it and bounds its console.
func checkMembers(t *testing.T, group, id string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	harness.Must(t, err)
	found := false
	for _, pid := range strings.Fields(string(text)) {
		line, _ := os.ReadFile("/proc/" + pid + "/cmdline") // it may have ended
		found = found || strings.Contains(string(line), "guest=osxb-"+id)
	}
	if n := len(strings.Fields(string(text))); !found || n < 3 {
		t.Errorf("the machine's group has %d processes, and QEMU among them: %t; want QEMU and at least two more", n, found)
	}
}

// checkLimits checks the limits of those controllers that the host delegates.
func checkLimits(t *testing.T, group, own string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	harness.Must(t, err)
	t.Logf("the host delegates: %s", text)
	for _, c := range strings.Fields(string(text)) {
		file := map[string]string{"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.weight"}[c]
		if file == "" {
			continue
		}
		value, err := os.ReadFile(filepath.Join(own, file))
		if err != nil || strings.TrimSpace(string(value)) == "max" {
			t.Errorf("%s: got %q, %v, want a limit", file, value, err)
		}
	}
}
