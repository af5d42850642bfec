package vm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// The driver's warnings are in the document, in the list and in the callback, and in the log once for all machines of
// the image.
func TestWarningsAboutTheImage(t *testing.T) {
	h := newHarness(t)
	var log lockedBuffer
	h.options = func(o *vm.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	h.driver.Warnings.Add(vm.WarningDeviceLeftOut, "sound: %s", "sound card")
	h.open()
	for range 2 {
		v := h.create(h.request())
		for _, got := range []vm.VM{h.callback(), h.wait(v.ID)} {
			want := vm.Warnings{{Code: vm.WarningDeviceLeftOut, Message: "sound: sound card"}}
			if diff := cmp.Diff(want, got.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if len(got.NICs) != 1 || got.NICs[0].IPAddress != got.IPAddress || got.NICs[0].NetworkType != vm.NAT {
				t.Errorf("got NICs %+v, want one with address %s", got.NICs, got.IPAddress)
			}
		}
	}
	list, err := h.vms.List(t.Context(), vm.Filter{}, everyone)
	must(t, err)
	if len(list) != 2 || len(list[1].Warnings) != 1 {
		t.Errorf("got list %+v, want two machines with a warning each", list)
	}
	if n := log.count("sound: sound card"); n != 1 {
		t.Errorf("the log has the warning %d times, want once", n)
	}
}

// A guest that was not ready in time has a warning, also after a restart of the daemon, until it is.
func TestWarningsAboutTheGuest(t *testing.T) {
	for code, set := range map[vm.WarningCode]func(h *harness, on bool){
		vm.WarningGuestSilent: func(h *harness, on bool) { h.driver.Silent = on },
		vm.WarningNoAddress:   func(h *harness, on bool) { h.driver.NoAddress = on },
	} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			set(h, true)
			q := h.request()
			q.ToolsInitTimeout = vm.Timeout(time.Second)
			v := h.open().create(q)
			posted := h.callback()
			h.wait(v.ID)
			h.close()
			h.open()
			for _, got := range []vm.VM{posted, h.wait(v.ID)} {
				if got.Phase != vm.Ready || len(got.Warnings) != 1 || got.Warnings[0].Code != code || !strings.Contains(got.Warnings[0].Message, "1s") {
					t.Errorf("got phase %s, warnings %+v, want ready and %s", got.Phase, got.Warnings, code)
				}
			}
			h.close()
			set(h, false)
			h.open()
			if got := h.wait(v.ID); len(got.Warnings) != 0 {
				t.Errorf("got %+v once the guest is ready, want no warning", got.Warnings)
			}
		})
	}
}

// An inspection that is slow is not cut off by the limit: how the machine is then decides.
func TestSlowInspectionIsWaitedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		first     error // of the first inspection
		noAddress bool
		want      []vm.WarningCode
	}{
		"without an address": {nil, true, []vm.WarningCode{vm.WarningNoAddress}},
		"unreadable before":  {errors.New("a lock is held"), false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.driver.NoAddress = tt.noAddress
			var inspections atomic.Int32
			h.driver.Hook = func(ctx context.Context, s vmtest.Step, _ vm.Machine) error {
				if s != vmtest.Inspect {
					return nil
				}
				switch inspections.Add(1) {
				case 1:
					return tt.first
				case 2:
					select {
					case <-ctx.Done():
					case <-time.After(1500 * time.Millisecond): // longer than the limit
					}
				}
				return nil
			}
			q := h.request()
			q.ToolsInitTimeout = vm.Timeout(time.Second)
			v := h.open().create(q)
			for _, got := range []vm.VM{h.callback(), h.wait(v.ID)} {
				var codes []vm.WarningCode
				for _, w := range got.Warnings {
					codes = append(codes, w.Code)
				}
				if got.Phase != vm.Ready || !slices.Equal(codes, tt.want) {
					t.Errorf("got phase %s, error %v, warnings %v, want ready and %v", got.Phase, got.Error, codes, tt.want)
				}
			}
		})
	}
}

// A machine with more processors than its host has a warning from the start, which stays.
func TestWarningAboutProcessors(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver = limited{h.driver} }
	h.open()
	for cpus, want := range map[int]int{4: 0, 5: 1} {
		q := h.request()
		q.CPUs = cpus
		v := h.create(q)
		for _, got := range []vm.VM{v, h.wait(v.ID)} {
			if len(got.Warnings) != want || want == 1 && (got.Warnings[0].Code != vm.WarningCPUs || !strings.Contains(got.Warnings[0].Message, "5 virtual processors and the host has 4")) {
				t.Errorf("%d processors: got %+v, want %d warnings", cpus, got.Warnings, want)
			}
		}
	}
}

// An image decides how many warnings there are, and what they quote.
func TestWarningsAreBounded(t *testing.T) {
	var w vm.Warnings
	for i := range 1000 {
		w.Add(vm.WarningDeviceLeftOut, "%d %s", i, strings.Repeat("x", 10_000))
		w.Add(vm.WarningDeviceLeftOut, "%d %s", i, strings.Repeat("x", 10_000))
	}
	size := 0
	for _, one := range w {
		size += len(one.Message)
	}
	if len(w) != 100 || size > 100*1000 || !slices.ContainsFunc(w, func(one vm.Warning) bool { return strings.HasPrefix(one.Message, fmt.Sprint(99)) }) {
		t.Errorf("got %d warnings with %d bytes, want the first 100, each with at most 1000 bytes", len(w), size)
	}
}
