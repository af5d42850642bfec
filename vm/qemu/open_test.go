package qemu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/qemu"
	"osx-builder/vm/vmtest"
)

// A folder too deep for the sockets in it is refused at once, and one that is
// just not too deep works.
func TestOpenDeepFolder(t *testing.T) {
	r := newTestDriver(t)
	const longest = 62
	for _, length := range []int{longest, longest + 1} {
		o := options(r.data)
		o.MachinesDir = filepath.Join(r.data, strings.Repeat("d", length-len(r.data)-1))
		d, err := qemu.Open(o)
		if length > longest {
			for _, word := range []string{o.MachinesDir, fmt.Sprint(length), fmt.Sprint(longest), "-data"} {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("got error %v, want %q in it", err, word)
				}
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		deep := &testDriver{d, t, r.data}
		m := deep.machine()
		m.Dir = filepath.Join(o.MachinesDir, m.ID)
		deep.clone(m, r.image(idleGuest, plain...))
		deep.start(m)
		if err := deep.Destroy(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenUnknownNetwork(t *testing.T) {
	o := options(t.TempDir())
	o.Network = "token ring"
	if _, err := qemu.Open(o); err == nil || !strings.Contains(err.Error(), "token ring") {
		t.Errorf("got error %v, want one that names the network", err)
	}
}

// Without QEMU the driver says what to install, and still takes machines away.
func TestNoQEMU(t *testing.T) {
	r := newTestDriver(t)
	m := r.running(idleGuest)
	gold := r.image(idleGuest, plain...)
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("Ready where QEMU is: %v", err)
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	wantCode(t, r.Ready(t.Context()), vm.CodeHypervisorUnavailable, "qemu-system-x86_64", "install")
	wantCode(t, r.Clone(t.Context(), r.machine(), gold), vm.CodeHypervisorUnavailable, "qemu-system-x86_64")
	if got := r.Describe(t.Context())["missing"]; !strings.Contains(got, "install") {
		t.Errorf("got %q for what is missing, want how to install it", got)
	}
	if got := r.inspect(m).Power; got != vm.PoweredOn {
		t.Errorf("got %q, want %q", got, vm.PoweredOn)
	}
	if err := r.Destroy(t.Context(), m); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	t.Setenv("PATH", path)
	if n := processes(t, m); n != 0 {
		t.Errorf("got %d processes of a destroyed machine, want none", n)
	}
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("Ready once QEMU is installed: %v", err)
	}
}

// A QEMU that is too old is refused until another is installed in its place.
func TestOldQEMU(t *testing.T) {
	r := newTestDriver(t)
	script := filepath.Join(r.data, "qemu")
	o := options(r.data)
	o.QEMU = script
	d, err := qemu.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	install := func(version string) {
		t.Helper()
		text := "#!/bin/sh\necho 'QEMU emulator version " + version + "'\n"
		vmtest.WriteProgram(t, script+".new", text)
		if err := os.Rename(script+".new", script); err != nil {
			t.Fatal(err)
		}
	}
	install("5.2.0 (Debian 1:5.2+dfsg-11)")
	wantCode(t, d.Ready(t.Context()), vm.CodeHypervisorUnavailable, script, "5.2.0", "6 or later")
	for _, version := range []string{"7.2.22", "10.1.0"} {
		install(version)
		if err := d.Ready(t.Context()); err != nil {
			t.Errorf("Ready with QEMU %s: %v", version, err)
		}
		if got := d.Describe(t.Context())["version"]; got != version {
			t.Errorf("got version %q, want %s", got, version)
		}
	}
}

func TestDescribe(t *testing.T) {
	r := newTestDriver(t)
	facts := r.Describe(t.Context())
	for _, name := range []string{"version", "path", "acceleration", "network"} {
		if facts[name] == "" {
			t.Errorf("got no %s in %v", name, facts)
		}
	}
	if got := facts["acceleration"]; strings.HasPrefix(got, "tcg") != strings.Contains(got, "slow") {
		t.Errorf("got acceleration %q, want it to say that emulation is slow", got)
	}
	if limits := r.Limits(); limits.CPUs != 255 || limits.Memory < 256 {
		t.Errorf("got limits %+v, want 255 processors and the host's memory", limits)
	}
	for _, kind := range []vm.NetworkType{vm.NAT, vm.HostOnly} {
		if err := r.Network(kind); err != nil {
			t.Errorf("network %s: %v", kind, err)
		}
	}
	wantCode(t, r.Network(vm.Bridged), vm.CodeNetworkUnavailable, "bridged", "-network user", "-bridge NAME")
	wantCode(t, r.Network("lan"), vm.CodeNetworkUnavailable, "lan", "nat")
}

// A machine that asks for a window starts without one if there is no display.
func TestNoDisplay(t *testing.T) {
	r := newTestDriver(t)
	for name, display := range map[string]string{"no display": "", "no such display": ":99999"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DISPLAY", display)
			t.Setenv("WAYLAND_DISPLAY", "")
			m := r.machine()
			m.LaunchGUI = true
			r.clone(m, r.image(idleGuest, plain...))
			argv, err := r.Command(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			headless := strings.Contains(strings.Join(argv, " "), "-display none")
			if display == "" && !headless {
				t.Errorf("got %q, want no window", argv)
			}
			if headless {
				r.start(m)
			}
		})
	}
}
