package vm_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

func hasWarning(v vm.VM, code vm.WarningCode) bool {
	return slices.ContainsFunc(v.Warnings, func(w vm.Warning) bool { return w.Code == code })
}

// A machine's first disk has the size that its request asks for, if that is not smaller than the image's. The request is
// refused if the image is there, and the creation fails if it was not there yet.
func TestDiskSize(t *testing.T) {
	h := newHarness(t)
	h.driver.Disk = 2<<30 + 512
	h.options = func(o *vm.Options) { o.MaxDisk = 8 << 30 }
	var cloned sync.Map // bytes of the first disk by the machine's id
	h.driver.Hook = func(_ context.Context, s vmtest.Step, m vm.Machine) error {
		if s == vmtest.Clone {
			cloned.Store(m.ID, m.Disk)
		}
		return nil
	}
	h.open()
	q := h.request()
	q.Disk = "2gib"
	v := h.create(q)
	if v.Disk != "2gib" {
		t.Errorf("got disk %q, want 2gib", v.Disk)
	}
	v = h.wait(v.ID)
	if v.Phase != vm.Failed || v.Error.Code != vm.CodeDiskTooSmall || v.Error.Field != "disk" {
		t.Fatalf("before the image was there: got %s, %+v, want failed with %s", v.Phase, v.Error, vm.CodeDiskTooSmall)
	}
	must(t, h.vms.Destroy(t.Context(), v.ID))
	_, err := h.vms.Create(t.Context(), q, "")
	wantCode(t, "with the image", err, vm.CodeDiskTooSmall)
	for _, text := range []string{v.Error.Message, err.Error()} {
		if !strings.Contains(text, `"2gib"`) || !strings.Contains(text, "2049mib") {
			t.Errorf("got %q, want both sizes", text)
		}
	}
	for text, c := range map[string]struct {
		bytes int64 // of the driver's machine
		grown bool
	}{
		"": {}, "2049mib": {2049 << 20, true}, "4 GiB": {4 << 30, true}, "4194305kib": {4097 << 20, true}, "8gib": {8 << 30, true},
	} {
		q.Disk = text
		v := h.wait(h.create(q).ID)
		if v.Phase != vm.Ready || hasWarning(v, vm.WarningDiskGrown) != c.grown || v.Disk != strings.ToLower(strings.ReplaceAll(text, " ", "")) {
			t.Errorf("%q: got %s, disk %q and warnings %+v, want a warning: %v", text, v.Phase, v.Disk, v.Warnings, c.grown)
		}
		if got, _ := cloned.Load(v.ID); got != c.bytes {
			t.Errorf("%q: the driver got %v bytes, want %d", text, got, c.bytes)
		}
	}
	h.driver.Disk = 2 << 30
	q.Disk = "2gib"
	if v := h.wait(h.create(q).ID); v.Phase != vm.Ready || hasWarning(v, vm.WarningDiskGrown) {
		t.Errorf("the image's size: got %s with %+v, want no warning", v.Phase, v.Warnings)
	}
}

// Sizes of disks are read like those of memory, with the same messages.
func TestDiskSizeRefused(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.MaxDisk = 8 << 30 }
	h.open()
	for text, want := range map[string]string{
		"40gb":                    `a size in IEC units, such as "1gib"`,
		"40":                      `a size in IEC units, such as "1gib"`,
		"-1gib":                   `a size in IEC units, such as "1gib"`,
		"much":                    `a size in IEC units, such as "1gib"`,
		"9gib":                    "at most 8192mib, the limit of the setting -image-max-disk",
		"1023ki":                  "at least 1mib",
		"99999999999999999999eib": "at most 8192mib",
	} {
		q := h.request()
		q.Disk = text
		_, err := h.vms.Create(t.Context(), q, "")
		var e *vm.Error
		if !errors.As(err, &e) || e.Code != vm.CodeInvalidField || e.Field != "disk" || !strings.Contains(e.Message, want) || !strings.Contains(e.Message, text) {
			t.Errorf("%q: got %v, want %s for disk with %q", text, err, vm.CodeInvalidField, want)
		}
	}
	if names := h.files(); len(names) != 0 {
		t.Errorf("refused requests left %v", names)
	}
}

// A hypervisor that cannot make disks larger refuses the request in words that say what to do.
func TestDiskSizeNotSupported(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver = struct{ vm.Driver }{h.driver} }
	h.open()
	q := h.request()
	q.Disk = "40gib"
	_, err := h.vms.Create(t.Context(), q, "")
	wantCode(t, "disk", err, vm.CodeNotSupported)
	if !strings.Contains(err.Error(), "-driver qemu") {
		t.Errorf("got %v, want what to do instead", err)
	}
	if v := h.wait(h.create(h.request()).ID); v.Phase != vm.Ready {
		t.Errorf("without disk: got %+v, want ready", v)
	}
}
