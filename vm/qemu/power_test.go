package qemu_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu/qmp/qmptest"
	"osx-builder/vm/vmtest/harness"
)

func (r *testDriver) press(m vm.Machine, a vm.Action) {
	r.t.Helper()
	if err := r.Power(r.t.Context(), m, a); err != nil {
		r.t.Fatalf("%s: %v", a, err)
	}
}

// fetch reads a page of the real guest on the user network.
func (r *testDriver) fetch(st vm.Status, path string) string {
	r.t.Helper()
	client := http.Client{Timeout: harness.Timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", hostPort(st, 80), path))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if pid == 0 || pid == -1 { // the own process group, or every process
		t.Fatalf("%d is no process", pid)
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// field is the value of a line "name: value".
func field(page, name string) string {
	_, rest, _ := strings.Cut(page, name+": ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// A guest without an agent is asked to shut down by its power button.
func TestShutdownWithoutAgent(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.machine()
	m.CPUs, m.Memory = 1, 256
	gold := r.unpacked("tinyvm-noagent.tar.gz")
	st, page := r.answers(m, gold)
	shutsDown(t, r, m, gold, st, page)
}

// shutsDown asks the guest to shut down. It does so in order: it writes to its
// disk as it goes down, and what it wrote is there at its next boot, of which
// state and page are returned.
func shutsDown(t *testing.T, r *testDriver, m vm.Machine, gold string, st vm.Status, page string) (vm.Status, string) {
	boot := field(page, "boot_id")
	if got := field(page, "last_shutdown"); got != "none" || boot == "" {
		t.Fatalf("got page %q before there was a shutdown", page)
	}
	r.fetch(st, "/cgi-bin/mark?value=kept")
	r.press(m, vm.ActionShutdown)
	until(t, harness.Timeout, "the guest's end", func() bool { return r.inspect(m).Power == vm.PoweredOff })
	if got := r.inspect(m); got.StoppedBecause != "the guest shut down" || got.Died {
		t.Errorf("got %+v, want that the guest shut down", got)
	}
	if log := serial(m); !strings.Contains(log, "tinyvm: shutting down") {
		t.Errorf("the guest did not shut down in order; its console:\n%s", log)
	}
	st, page = r.answers(m, gold)
	if got := field(page, "last_shutdown"); !strings.HasPrefix(got, "clean ") || !strings.HasSuffix(got, boot) {
		t.Errorf("the next boot finds %q on the disk, want a clean shutdown of boot %s", got, boot)
	}
	if got := field(page, "mark"); got != "kept" {
		t.Errorf("the next boot finds mark %q, want kept", got)
	}
	return st, page
}

// startsBeforeQEMUEnded starts a machine that its guest switched off, while its
// QEMU has not ended yet.
func startsBeforeQEMUEnded(t *testing.T, r *testDriver, m vm.Machine, gold string, st vm.Status, page string) {
	r.lingers(m)
	r.fetch(st, "/cgi-bin/poweroff")
	until(t, harness.Timeout, "the guest's end", func() bool { return r.inspect(m).Power == vm.PoweredOff })
	before := pidOf(t, m) // it is still there
	_, again := r.answers(m, gold)
	if field(again, "boot_id") == field(page, "boot_id") || pidOf(t, m) == before {
		t.Errorf("got page %q of process %d, want another boot and process", again, before)
	}
}

// lingers makes QEMU stay when its guest has switched the machine off.
func (r *testDriver) lingers(m vm.Machine) {
	r.t.Helper()
	tellQEMU(r.t, m, `{"execute": "set-action", "arguments": {"shutdown": "pause"}}`)
}

// tellQEMU sends a command to the machine's monitor and waits for its answer.
func tellQEMU(t *testing.T, m vm.Machine, command string) {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(m.Dir, "qmp"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, `{"execute": "qmp_capabilities"}`, command)
	replies := json.NewDecoder(c)
	for answers := 0; answers < 2; {
		var reply struct{ Return, Error json.RawMessage }
		if err := replies.Decode(&reply); err != nil || reply.Error != nil {
			t.Fatalf("got %s, %v from QEMU", reply.Error, err)
		}
		if reply.Return != nil {
			answers++
		}
	}
}

// answers is bootsFrom for guests that may have no agent.
func (r *testDriver) answers(m vm.Machine, gold string) (st vm.Status, page string) {
	r.t.Helper()
	r.clone(m, gold)
	r.start(m)
	until(r.t, harness.Timeout, "the guest's page", func() (ok bool) {
		if st = r.inspect(m); len(st.Forwards) < 2 {
			return false
		}
		page, ok = served(pageAt(st))
		return ok && field(page, "boot_id") != ""
	})
	return st, page
}

// A reset boots the machine again, in the same process; a machine that its
// host's restart, or a crash, ended while it was suspended is off, and starts
// as any other.
func TestResetAndLostSuspension(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })
	pid := pidOf(t, m)
	r.press(m, vm.ActionShutdown) // which does not wait for the guest, for this one never obeys
	r.press(m, vm.ActionReset)
	until(t, harness.Timeout, "a second boot", func() bool { return serial(m) == "OK\nOK\n" })
	if got := pidOf(t, m); got != pid {
		t.Errorf("got process %d after a reset, want still %d", got, pid)
	}
	r.press(m, vm.ActionSuspend)
	signal(t, pid, syscall.SIGKILL)
	until(t, harness.Timeout, "the end of the killed process", func() bool { return r.inspect(m).Power == vm.PoweredOff })
	wantCode(t, r.Power(t.Context(), m, vm.ActionResume), vm.CodePower, "off")
	r.start(m)
	if got := r.inspect(m).Power; got != vm.PoweredOn {
		t.Errorf("got %q after the start, want powered-on", got)
	}
	if _, err := os.Lstat(filepath.Join(m.Dir, "suspended")); err == nil {
		t.Error("the suspension of the process that was killed is not forgotten")
	}
}

// A QEMU that ends closes its monitor before its process is gone. Whoever asks then does not
// fail because of that.
func TestPowerWhileQEMUEnds(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	for _, a := range []vm.Action{vm.ActionShutdown, vm.ActionSuspend, vm.ActionResume, vm.ActionReset, "screenshot"} {
		m := r.running(idleGuest)
		pid, asked := pidOf(t, m), 0
		socket := qmptest.Listen(t, "qmp", func(net.Conn) {
			if asked++; asked == 2 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		monitor := filepath.Join(m.Dir, "qmp")
		if err := os.Remove(monitor); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(socket, monitor); err != nil {
			t.Fatal(err)
		}
		switch a {
		case vm.ActionShutdown:
			r.press(m, a)
		case "screenshot":
			_, err := r.Screenshot(t.Context(), m)
			wantCode(t, err, vm.CodePower, "off")
		default:
			wantCode(t, r.Power(t.Context(), m, a), vm.CodePower, "off")
		}
	}
}

// A QEMU that does not answer is switched off all the same.
func TestOffWhileQEMUHangs(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	signal(t, pidOf(t, m), syscall.SIGSTOP)
	r.press(m, vm.ActionOff)
	if got := r.inspect(m).Power; got != vm.PoweredOff {
		t.Errorf("got %q, want powered-off", got)
	}
}

// The screenshot shows the firmware's text on black. The file that QEMU writes it
// to is removed.
func TestScreenshot(t *testing.T) {
	t.Parallel()
	r := newTestDriver(t)
	m := r.running(idleGuest)
	until(t, harness.Timeout, "a word on the serial port", func() bool { return serial(m) == "OK\n" })
	shot, err := r.Screenshot(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	screen, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	colours := map[[3]uint32]int{}
	for y := range screen.Bounds().Dy() {
		for x := range screen.Bounds().Dx() {
			red, green, blue, _ := screen.At(x, y).RGBA()
			colours[[3]uint32{red, green, blue}]++
		}
	}
	if screen.Bounds().Dx() < 640 || len(colours) < 2 || colours[[3]uint32{}] == 0 {
		t.Errorf("got a screen of %v with colours %v, want text on black", screen.Bounds(), colours)
	}
	if left, _ := filepath.Glob(filepath.Join(m.Dir, "screen-*")); len(left) > 0 {
		t.Errorf("the screenshot left %v", left)
	}
	if err := r.Power(context.Background(), m, vm.ActionOff); err != nil {
		t.Fatal(err)
	}
	_, err = r.Screenshot(t.Context(), m)
	wantCode(t, err, vm.CodePower, "off")
}
