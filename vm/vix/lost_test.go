//go:build vix && cgo && !windows

package vix_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vix"
	"osx-builder/vm/vmware"
)

// When VMware restarts, all handles become useless. The driver connects again, and works as before with machines that
// ran meanwhile and with new ones.
func TestLostConnection(t *testing.T) {
	for _, code := range []int{26, 34, 36, 1000} {
		for _, first := range []string{"Clone", "Start", "Inspect", "Destroy"} {
			t.Run(fmt.Sprint(code, " ", first), func(t *testing.T) {
				h := newHarness(t)
				h.set("unlock.ms", 0)
				d, err := vix.Open(h.options)
				must(t, err)
				before := h.stats()
				m, other := h.running(d), h.machine()
				must(t, d.Clone(t.Context(), other, h.gold))
				h.set("lost", code)
				switch first {
				case "Clone":
					must(t, d.Clone(t.Context(), h.machine(), h.gold))
				case "Start":
					must(t, d.Start(t.Context(), other))
				case "Inspect":
					if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
						t.Errorf("Inspect: got %+v, %v, want powered-on", st, err)
					}
				case "Destroy":
					must(t, d.Destroy(t.Context(), other))
				}
				must(t, d.Ready(t.Context()))
				must(t, d.Destroy(t.Context(), m))
				must(t, d.Destroy(t.Context(), other))
				must(t, d.Close())
				for _, name := range []string{"vm", "job", "snapshot", "dead_release", "dead_call", "orphan"} {
					// Calls of earlier tests, of which some hang for a while, may end meanwhile.
					if n := h.stats()[name]; n > before[name] {
						t.Errorf("%s: %d before, %d after", name, before[name], n)
					}
				}
				if n := h.stats()["host"]; n > before["host"]-1 {
					t.Errorf("got %d hosts after Close, want %d", n, before["host"]-1)
				}
			})
		}
	}
}

// While VMware accepts no connection, Ready says so, and calls fail after their deadline. When it does again, the driver
// works again by itself.
func TestLostConnectionForLong(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines.Read = 200 * time.Millisecond
	d := h.open()
	m := h.running(d)
	h.set("error.VixHost_Connect", 22005)
	h.set("lost", 34)
	if _, err := d.Inspect(t.Context(), m); !isCode(err, vm.CodeHypervisorUnavailable) || !strings.Contains(err.Error(), "connects again") {
		t.Errorf("Inspect: got %v, want %s", err, vm.CodeHypervisorUnavailable)
	}
	waitUntil(t, "Ready says why", func() bool {
		err := d.Ready(t.Context())
		return isCode(err, vm.CodeHypervisorUnavailable) && strings.Contains(err.Error(), "22005")
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Start(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with a cancelled context: got %v", err)
	}
	h.clear()
	waitUntil(t, "ready again", func() bool { return d.Ready(t.Context()) == nil })
	if st, err := d.Inspect(t.Context(), m); err != nil || st.Power != vm.PoweredOn {
		t.Errorf("Inspect: got %+v, %v, want powered-on", st, err)
	}
	must(t, d.Destroy(t.Context(), m))
}

// A driver can be closed while it connects again, even if that hangs.
func TestCloseWhileConnecting(t *testing.T) {
	h := newHarness(t)
	d, err := vix.Open(h.options)
	must(t, err)
	m := h.running(d)
	before := h.stats()
	h.set("hang.VixHost_Connect", "")
	h.set("lost", 36)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := d.Inspect(ctx, m); err == nil {
			t.Error("Inspect without a connection: got no error")
		}
	})
	waitUntil(t, "connecting hangs", func() bool { return h.stats()["calls"] == 1 })
	cancel()
	wg.Wait()
	must(t, d.Close())
	h.clear()
	waitUntil(t, "the late connection is closed", func() bool {
		s := h.stats()
		return s["calls"] == 0 && s["job"] <= before["job"] && s["host"] <= before["host"]
	})
	must(t, h.open().Destroy(t.Context(), m))
}

// VMware answers error 5 if something is busy. Each step tries again.
func TestBusy(t *testing.T) {
	h := newHarness(t)
	d := h.open()
	for _, function := range []string{
		"VixHost_OpenVM", "VixVM_GetNamedSnapshot", "VixVM_CreateSnapshot", "VixVM_Clone", "VixVM_PowerOn",
		"Vix_GetProperties", "VixVM_Suspend", "VixVM_Reset", "VixVM_PowerOff", "VixVM_Delete",
	} {
		t.Run(function, func(t *testing.T) {
			m := h.machine()
			step := func(err error) {
				t.Helper()
				must(t, err)
				h.set("error."+function, "5 3")
			}
			step(nil)
			step(d.Clone(t.Context(), m, h.gold))
			step(d.Start(t.Context(), m))
			_, err := d.Inspect(t.Context(), m)
			step(err)
			for _, a := range []vm.Action{vm.ActionReset, vm.ActionSuspend, vm.ActionResume, vm.ActionOff} {
				step(d.Power(t.Context(), m, a))
			}
			step(d.Destroy(t.Context(), m))
			h.clear()
			h.checkGone(d, m)
		})
	}
}

// If something stays busy, the step fails with VMware's error.
func TestBusyForever(t *testing.T) {
	h := newHarness(t)
	h.options.Deadlines = vmware.Deadlines{Start: 300 * time.Millisecond}
	d := h.open()
	m := h.machine()
	must(t, d.Clone(t.Context(), m, h.gold))
	h.set("error.VixVM_PowerOn", 5)
	if err := d.Start(t.Context(), m); !isCode(err, vm.CodeHypervisor) {
		t.Errorf("got %v, want %s", err, vm.CodeHypervisor)
	}
	h.clear()
	must(t, d.Destroy(t.Context(), m))
}

// A guest whose address cannot be read costs no reader the power state, and does not keep the machine from being
// destroyed.
func TestHangingAddress(t *testing.T) {
	h := newHarness(t)
	lease := filepath.Join(h.dir, "leases")
	h.options.Leases = vmware.Leases{vm.NAT: lease}
	d := h.open()
	m := h.running(d)
	h.set("hang.VixVM_ReadVariable", m.ID)
	for range 3 {
		st, err := d.Inspect(t.Context(), m)
		if err != nil || st.Power != vm.PoweredOn || st.IP != "" {
			t.Errorf("Inspect: got %+v, %v, want powered-on without an address", st, err)
		}
	}
	st, err := d.Inspect(t.Context(), m)
	must(t, err)
	must(t, os.WriteFile(lease, []byte("lease 172.16.1.9 {\n ends 3 2100/01/01 00:00:00;\n hardware ethernet "+st.MAC+";\n}\n"), 0o644))
	if st, err := d.Inspect(t.Context(), m); err != nil || st.IP != "172.16.1.9" {
		t.Errorf("with a lease: got %+v, %v, want its address", st, err)
	}
	if n := h.stats()["calls"]; n != 1 {
		t.Errorf("got %d reads that hang, want one for all readers", n)
	}
	must(t, d.Destroy(t.Context(), m))
	h.checkGone(d, m)
}
