package qemu_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// tpm are the lines of a machine with VMware's virtual TPM, which VMware encrypts.
var tpm = []string{
	`vtpm.present = "TRUE"`, `vmx.encryptionType = "partial"`, `encryption.keySafe = "vmware:key/list/(pair/(x))"`, `encryption.data = "AAAA"`,
}

// Commands of TPM 2.0. The first defines a place in the TPM's memory that outlives its power, the second reads what was
// defined.
const (
	defineSpace = `\x80\x02\x00\x00\x00\x2d\x00\x00\x01\x2a\x40\x00\x00\x01\x00\x00\x00\x09\x40\x00\x00\x09\x00\x00\x00\x00\x00` +
		`\x00\x00\x00\x0e\x01\x50\x00\x00\x00\x0b\x00\x06\x00\x06\x00\x00\x00\x08`
	readPublic = `\x80\x01\x00\x00\x00\x0e\x00\x00\x01\x69\x01\x50\x00\x00`
)

// tellTPM sends a command to the guest's TPM and returns the code of its response.
func tellTPM(t *testing.T, m vm.Machine, command string) string {
	t.Helper()
	out, ok := guestRun(t, m, "/bin/sh", "-c",
		`exec 3<>/dev/tpm0; printf '`+command+`' >&3; head -c 10 <&3 | od -An -tx1 | tr -d ' \n'`)
	if !ok || len(out) < 20 {
		t.Fatalf("got response %q from the guest's TPM", out)
	}
	return out[12:20]
}

// The guest of an image with a TPM has a TPM 2.0, which keeps its state while the machine is off.
func TestTPM(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	m.Memory, m.Forward = 256, []int{80, 22}
	gold := r.tinyvm()
	addLines(t, gold, tpm...)
	st, _ := r.bootsFrom(m, gold, pageAt)
	if !slices.ContainsFunc(st.Warnings, func(w vm.Warning) bool { return w.Code == vm.WarningTPMReplaced }) {
		t.Errorf("got warnings %+v, want %s", st.Warnings, vm.WarningTPMReplaced)
	}
	if version, _ := guestRun(t, m, "/bin/cat", "/sys/class/tpm/tpm0/tpm_version_major"); strings.TrimSpace(version) != "2" {
		t.Errorf("got version %q of the guest's TPM, want 2", version)
	}
	if code := tellTPM(t, m, readPublic); code == "00000000" {
		t.Errorf("a new TPM: got code %s, want an error", code)
	}
	if code := tellTPM(t, m, defineSpace); code != "00000000" {
		t.Errorf("defining a place: got code %s, want success", code)
	}
	r.press(m, vm.ActionOff)
	until(t, harness.Timeout, "the end of the TPM", func() bool { return tpmOf(m) == 0 })
	r.start(m)
	until(t, harness.Timeout, "the guest's agent", func() bool { return r.inspect(m).Tools == vm.ToolsRunning })
	if code := tellTPM(t, m, readPublic); code != "00000000" {
		t.Errorf("after the machine was off: got code %s, want success", code)
	}
}

// tpmOf returns the process of the machine's TPM, or 0.
func tpmOf(m vm.Machine) int {
	for _, pid := range workingIn(m.Dir) {
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.TrimSpace(string(name)) == "swtpm" {
			return pid
		}
	}
	return 0
}

// The TPM's process is confined like QEMU. The machine says when it is lost, and starts again. It goes with the machine,
// also if it hangs.
func TestTPMProcess(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	r.clone(m, r.image(idleGuest, slices.Concat(plain, tpm)...))
	r.start(m)
	pid := tpmOf(m)
	wantConfined(t, m, pid)

	signal(t, pid, syscall.SIGKILL)
	var st vm.Status
	until(t, harness.Timeout, "the fault", func() bool { st = r.inspect(m); return st.Fault != nil })
	if st.Fault.Code != vm.CodeHypervisor || !strings.Contains(st.Fault.Message, "virtual TPM has ended; switch the machine off and on again") {
		t.Errorf("got %v, want %s and what to do", st.Fault, vm.CodeHypervisor)
	}
	r.press(m, vm.ActionOff)
	r.start(m)
	if st := r.inspect(m); st.Fault != nil || tpmOf(m) == 0 {
		t.Errorf("started again: got %v and process %d, want no fault and a process", st.Fault, tpmOf(m))
	}

	// A QEMU that is killed takes it along, even if it hangs, and a state that leads elsewhere is refused.
	signal(t, tpmOf(m), syscall.SIGSTOP)
	signal(t, pidOf(t, m), syscall.SIGKILL)
	until(t, harness.Timeout, "the end of the TPM", func() bool { return tpmOf(m) == 0 })
	state := filepath.Join(m.Dir, "tpm")
	harness.Must(t, errors.Join(os.Rename(state, state+".whole"), os.Symlink("/etc/shadow", state)))
	wantCode(t, r.Start(t.Context(), m), vm.CodeHypervisor, state, "is not as it must be")
	if all := workingIn(m.Dir); len(all) > 0 {
		t.Errorf("got processes %v after a start that failed, want none", all)
	}
	harness.Must(t, os.Rename(state+".whole", state))
	r.start(m)

	signal(t, tpmOf(m), syscall.SIGSTOP)
	another, err := openDriver(options(r.data))
	harness.Must(t, err)
	defer another.Close()
	harness.Must(t, another.Destroy(t.Context(), m))
	if all := workingIn(m.Dir); len(all) > 0 {
		t.Errorf("got processes %v of a destroyed machine, want none", all)
	}
	if _, err := os.Stat(m.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v for the folder of a destroyed machine, want none", err)
	}
}

// wantConfined checks the rights of the TPM's process.
func wantConfined(t *testing.T, m vm.Machine, pid int) {
	t.Helper()
	status := harness.ReadFile(t, fmt.Sprintf("/proc/%d/status", pid))
	user := "\nUid:\t" + strconv.Itoa(os.Getuid())
	if os.Getuid() == 0 {
		text := strings.TrimSpace(harness.ReadFile(t, filepath.Join(m.Dir, "user")))
		user = fmt.Sprintf("\nUid:\t%s\t%s\t%s\t%s\n", text, text, text, text)
	}
	for _, line := range []string{user, "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n", "\nCapEff:\t0000000000000000\n", "\nCapBnd:\t0000000000000000\n"} {
		if os.Getuid() != 0 && strings.HasPrefix(line, "\nCapBnd") {
			continue
		}
		if !strings.Contains(status, line) {
			t.Errorf("want %q in %s", line, status)
		}
	}
	if env := harness.ReadFile(t, fmt.Sprintf("/proc/%d/environ", pid)); strings.ContainsAny(env, "=") && !strings.HasPrefix(env, "PWD=") {
		t.Errorf("got environment %q, want none", env)
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	harness.Must(t, err)
	for _, f := range files {
		to, _ := os.Readlink(f)
		if in := filepath.Base(to); strings.HasPrefix(to, "/") && to != "/dev/null" && !slices.Contains([]string{"tpm", "tpm.pid", "tpm.log"}, in) {
			t.Errorf("the TPM's process has %s open", to)
		}
	}
}
