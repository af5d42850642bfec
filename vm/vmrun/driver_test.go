//go:build !windows

package vmrun_test

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/cloudinit"
	"osx-builder/vm/vmrun"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmware"
	"osx-builder/vm/vmx"
)

func TestDriver(t *testing.T) {
	h := newHarness(t)
	vmtest.TestDriver(t, vmtest.Harness{
		Open: func(t *testing.T) vm.Driver {
			t.Helper()
			return h.open()
		},
		Gold: h.gold, GuestOS: "debian11-64", Limit: 3 * time.Minute,
	})
}

// hasCode reports whether err is an error for clients with this code, whose message contains text.
func hasCode(err error, code vm.Code, text string) bool {
	e, ok := errors.AsType[*vm.Error](err)
	return ok && e.Code == code && strings.Contains(e.Message, text)
}

// vmrun's texts get the codes of this daemon, and say what to do. The machine can be used once vmrun works again.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		command, text string
		code          vm.Code
		hint          string
	}{
		"locked":        {"clone", "The file is already in use", vm.CodeOpen, "close it in VMware's window"},
		"disk full":     {"clone", "There is not enough disk space", vm.CodeDiskFull, "VIX error 8"},
		"no licence":    {"snapshot", "This operation is not supported with the current license", vm.CodeHypervisorUnavailable, "licence"},
		"not for Pro":   {"clone", "One of the parameters was invalid", vm.CodeHypervisor, "Pro licence"},
		"canceled":      {"start", "The operation was canceled", vm.CodeHypervisor, "desktop session"},
		"a dialog":      {"start", "The virtual machine is blocked waiting for a user operation", vm.CodeHypervisor, "dialog"},
		"permissions":   {"start", "Insufficient permissions in the host operating system", vm.CodeHypervisor, "as the user who runs VMware"},
		"unknown":       {"start", "Something new", vm.CodeHypervisor, "Something new"},
		"without words": {"start", "", vm.CodeHypervisor, "without a message"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.set("noise", "")
			d := h.open()
			h.set("error."+c.command, c.text+"\n")
			m := h.machine()
			err := d.Clone(t.Context(), m, h.gold)
			if c.command == "start" {
				must(t, err)
				err = d.Start(t.Context(), m)
			}
			if !hasCode(err, c.code, c.hint) {
				t.Errorf("got %v, want %s with %q", err, c.code, c.hint)
			}
			h.clear("error." + c.command)
			must(t, d.Clone(t.Context(), m, h.gold))
			must(t, d.Start(t.Context(), m))
			must(t, d.Destroy(t.Context(), m))
			h.checkGone(d, m)
		})
	}
}

// Each call has a deadline, after which vmrun is killed with its children. Afterwards the machine can be destroyed.
func TestHangingCalls(t *testing.T) {
	for _, command := range []string{"listSnapshots", "snapshot", "clone", "start", "stop", "deleteVM"} {
		t.Run(command, func(t *testing.T) {
			h := newHarness(t)
			h.options.Deadlines = vmware.Deadlines{Clone: time.Second, Start: time.Second, Stop: time.Second, Read: time.Minute}
			d := h.open()
			m := h.machine()
			h.set("hang."+command, "")
			err := d.Clone(t.Context(), m, h.gold)
			if command == "start" || command == "stop" || command == "deleteVM" {
				for hasCode(err, vm.CodeHypervisor, "vmrun did not") { // the host is busy
					err = d.Clone(t.Context(), m, h.gold)
				}
				must(t, err)
				err = d.Start(t.Context(), m)
			}
			if command == "stop" || command == "deleteVM" {
				err = d.Destroy(t.Context(), m)
			}
			if !hasCode(err, vm.CodeHypervisor, "vmrun did not") {
				t.Errorf("got %v, want an error that says what vmrun did not do", err)
			}
			waitUntil(t, "vmrun and its children ended", func() bool { return !h.isAlive() })
			h.clear("hang." + command)
			waitUntil(t, "destroyed", func() bool { return d.Destroy(t.Context(), m) == nil })
			h.checkGone(d, m)
		})
	}
}

// isAlive reports whether a process of the double runs, which it shows by its environment.
func (h *harness) isAlive() bool {
	names, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil || name == filepath.Join("/proc", "self", "environ") {
			continue
		}
		if bytes.Contains(data, []byte("OSXB_VMRUN_DOUBLE="+h.control)) && bytes.Contains(data, []byte("DISPLAY=")) {
			return true
		}
	}
	return false
}

// A guest that does not answer costs no reader the power state, and does not keep the machine from being destroyed.
func TestHangingGuest(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.running(d)
	h.set("hang.getGuestIPAddress", "")
	h.set("hang.checkToolsState", "")
	for range 3 {
		if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn || st.IP != "" || st.Tools != vm.ToolsUnknown {
			t.Errorf("Inspect: got %+v, %v, want powered-on and nothing about the guest", st, err)
		}
	}
	if n := len(h.calls("checkToolsState")); n != 1 {
		t.Errorf("got %d calls that hang, want one for all readers", n)
	}
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)
	must(t, d.Close())
	waitUntil(t, "no process is left", func() bool { return !h.isAlive() })
}

// VMware answers that something is busy. The call is tried again.
func TestBusy(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.machine()
	for _, command := range []string{"list", "listSnapshots", "snapshot", "clone", "start", "stop", "deleteVM"} {
		h.fail(command, "The object is busy", 2)
	}
	must(t, d.Clone(t.Context(), m, h.gold))
	must(t, d.Start(t.Context(), m))
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)
}

// Addresses that are not the guest's are replaced by the lease's.
func TestAddress(t *testing.T) {
	h := newHarness(t)
	lease := filepath.Join(h.dir, "leases")
	h.options.Leases = vmware.Leases{vm.NAT: lease}
	d := h.open()
	m := h.running(d)
	h.set("ip", "")
	st, err := d.Inspect(t.Context(), m)
	must(t, err)
	must(t, os.WriteFile(lease, []byte("lease 172.16.1.9 {\n ends 3 2100/01/01 00:00:00;\n hardware ethernet "+st.MAC+";\n}\n"), 0o644))
	for ip, want := range map[string]string{
		"": "172.16.1.9", "169.254.3.4": "172.16.1.9", "192.168.99.1": "172.16.1.9", "192.168.99.7": "192.168.99.7", "unknown": "172.16.1.9",
	} {
		h.set("ip", ip)
		waitUntil(t, "the address for "+ip, func() bool {
			st, err := d.Inspect(t.Context(), m)
			return err == nil && st.IP == want && st.Up
		})
	}
	must(t, d.Destroy(t.Context(), m))
}

// A guest that does not react to a shutdown delays nobody, and a guest without tools refuses it.
func TestShutdown(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.running(d)
	h.set("guest.deaf", "")
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("while the guest is asked: got %+v, %v, want powered-on", st, err)
	}
	h.clear("guest.deaf")
	waitUntil(t, "off", func() bool {
		st, err := d.Inspect(t.Context(), m)
		return err == nil && st.Power == vm.PoweredOff
	})
	must(t, d.Power(t.Context(), m, vm.ActionShutdown))
	must(t, d.Start(t.Context(), m))
	h.set("tools", "installed\n")
	if err := d.Power(t.Context(), m, vm.ActionShutdown); !hasCode(err, vm.CodeHypervisor, "Tools are not running") {
		t.Errorf("without tools: got %v, want VMware's refusal", err)
	}
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)
}

// Without a display, the machine starts without a window.
func TestNoDisplay(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.machine()
	m.LaunchGUI = true
	must(t, d.Clone(t.Context(), m, h.gold))
	must(t, d.Start(t.Context(), m))
	if calls := h.calls("start"); len(calls) != 2 || !strings.HasSuffix(calls[1], " nogui") {
		t.Errorf("got %q, want a start with a window and then one without", calls)
	}
	must(t, d.Destroy(t.Context(), m))
}

func TestScreenshot(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.running(d)
	shot, err := d.Screenshot(t.Context(), m)
	must(t, err)
	if _, err := png.Decode(bytes.NewReader(shot)); err != nil {
		t.Error(err)
	}
	must(t, d.Power(t.Context(), m, vm.ActionOff))
	if _, err := d.Screenshot(t.Context(), m); !hasCode(err, vm.CodePower, "does not run") {
		t.Errorf("of a machine that is off: got %v, want %s", err, vm.CodePower)
	}
	must(t, d.Destroy(t.Context(), m))
}

// An image has one snapshot, however many clones it has.
func TestOneSnapshot(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	for range 3 {
		must(t, d.Destroy(t.Context(), h.running(d)))
	}
	if n := len(h.calls("snapshot")); n != 1 {
		t.Errorf("got %d snapshots for three clones, want one", n)
	}
}

// Open says what is missing.
func TestOpenErrors(t *testing.T) {
	h := newHarness(t)
	for name, c := range map[string]struct {
		prepare func(o *vmrun.Options)
		want    string
	}{
		"no such program": {func(o *vmrun.Options) { o.Program = "/no/such/vmrun" }, "set -vmrun"},
		"nowhere": {func(o *vmrun.Options) {
			o.Program = ""
			t.Setenv("PATH", t.TempDir())
		}, "install VMware"},
		"not executable": {func(o *vmrun.Options) { o.Program = h.gold }, "cannot be used"},
		"another program": {func(o *vmrun.Options) {
			o.Program = filepath.Join(h.dir, "other")
			vmtest.WriteProgram(t, o.Program, "#!/bin/sh\necho hello\n")
		}, "is not VMware's vmrun"},
		"refusal": {func(*vmrun.Options) {
			h.set("error.list", "This operation is not supported with the current license\n")
		}, "licence"},
	} {
		t.Run(name, func(t *testing.T) {
			o := h.options
			c.prepare(&o)
			if _, err := vmrun.Open(o); !hasCode(err, vm.CodeHypervisorUnavailable, c.want) {
				t.Errorf("got %v, want %s with %q", err, vm.CodeHypervisorUnavailable, c.want)
			}
			if name == "refusal" {
				h.clear("error.list")
			}
			if _, err := os.Stat(o.Dir); err == nil {
				t.Error("a folder for base machines was created without VMware")
			}
		})
	}
}

// A cancelled context ends a call that hangs, and all its processes.
func TestCancel(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	m := h.machine()
	must(t, d.Clone(t.Context(), m, h.gold))
	h.set("hang.start", "")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- d.Start(ctx, m) }()
	waitUntil(t, "vmrun hangs", func() bool { return len(h.calls("start")) == 1 })
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
	waitUntil(t, "no process is left", func() bool { return !h.isAlive() })
	h.clear("hang.start")
	must(t, d.Destroy(t.Context(), m))
}

// What the guest configures itself with is in the settings of its .vmx, which only the daemon's user reads, instead of
// what the image has there. vmrun is not told.
func TestGuestConfig(t *testing.T) {
	h := newHarness(t)
	must(t, os.Chmod(h.gold, 0o644))
	must(t, os.WriteFile(h.gold, []byte(goldVMX+"guestinfo.userdata = \"of its maker\"\nguestinfo.vendordata = \"of its maker\"\nguestinfo.other = \"kept\"\n"), 0o444))
	d := h.open()
	m, plain := h.machine(), h.machine()
	m.Guest = &vm.GuestConfig{Hostname: "web", SSHAuthorizedKeys: []string{"ssh-ed25519 AAAA planted"}}
	for _, m := range []vm.Machine{m, plain} {
		must(t, d.Clone(t.Context(), m, h.gold))
		must(t, d.Start(t.Context(), m))
	}
	read := func(m vm.Machine) map[string]string {
		info, err := os.Stat(vmware.VMXPath(m))
		must(t, err)
		if m.Guest != nil && info.Mode().Perm() != 0o600 {
			t.Errorf("the .vmx has mode %v, want 0600", info.Mode())
		}
		text, err := os.ReadFile(vmware.VMXPath(m))
		must(t, err)
		f, err := vmx.Parse(text)
		must(t, err)
		settings := make(map[string]string)
		for _, key := range f.Keys() {
			if strings.HasPrefix(key, "guestinfo.") {
				settings[key], _ = f.Get(key)
			}
		}
		return settings
	}
	want := map[string]string{"guestinfo.other": "kept"}
	for _, s := range cloudinit.GuestInfo(m) {
		want[s.Key] = s.Value
	}
	if diff := cmp.Diff(want, read(m)); diff != "" || len(want) != 3 {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := read(plain); len(got) != 3 {
		t.Errorf("without a configuration: got %v, want what the image has", got)
	}
	data, err := os.ReadFile(filepath.Join(h.control, "log"))
	must(t, err)
	for _, secret := range []string{"planted", want["guestinfo.metadata"]} {
		if bytes.Contains(data, []byte(secret)) || strings.Contains(h.log.String(), secret) {
			t.Errorf("a call of vmrun or the log has %q", secret)
		}
	}
	must(t, d.Destroy(t.Context(), m))
	must(t, d.Destroy(t.Context(), plain))
	h.checkGone(d, m)
}
