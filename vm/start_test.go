package vm_test

import (
	"context"
	"sync/atomic"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// memoryDriver starts machines from memory if it has a template.
type memoryDriver struct {
	*vmtest.Driver
	template atomic.Bool
}

func (d *memoryDriver) Templates(context.Context) ([]vm.Template, error) {
	if !d.template.Load() {
		return []vm.Template{}, nil
	}
	return []vm.Template{{Key: "a"}}, nil
}

func (d *memoryDriver) RemoveTemplate(_ context.Context, key string) error {
	if key != "a" || !d.template.CompareAndSwap(true, false) {
		return &vm.Error{Code: vm.CodeTemplateNotFound, Message: "there is no template " + key}
	}
	return nil
}

func (d *memoryDriver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	st, err := d.Driver.Inspect(ctx, m)
	if m.Start == vm.StartMemory && d.template.Load() {
		st.Start = vm.StartMemory
	}
	return st, err
}

// A machine starts as its request or the daemon's setting says, if that is
// possible, and the document and the metrics show how it did.
func TestStartFromMemory(t *testing.T) {
	h := newHarness(t)
	var fromMemory, booted atomic.Int32
	d := &memoryDriver{Driver: h.driver}
	setDefault := vm.StartMode("")
	withMemory := true
	h.options = func(o *vm.Options) {
		if withMemory {
			o.Driver = d
		}
		o.Start = setDefault
		o.Hooks.MemoryStart = func(did bool) {
			if did {
				fromMemory.Add(1)
			} else {
				booted.Add(1)
			}
		}
	}
	h.open()
	create := func(asked, want vm.StartMode, warned bool) {
		t.Helper()
		q := h.request()
		q.Start = asked
		v := h.wait(h.create(q).ID)
		got := len(v.Warnings) == 1 && v.Warnings[0].Code == vm.WarningBooted
		if v.Start != want || got != warned {
			t.Errorf("asked for %q: got %s and warnings %v, want %s and a warning: %v", asked, v.Start, v.Warnings, want, warned)
		}
	}
	create("", "", false)
	create(vm.StartMemory, vm.StartBoot, false) // the driver itself says why
	d.template.Store(true)
	create(vm.StartMemory, vm.StartMemory, false)
	create(vm.StartBoot, "", false)
	if list, err := h.vms.Templates(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("got templates %v (%v), want one", list, err)
	}
	must(t, h.vms.RemoveTemplate(t.Context(), "a"))
	wantCode(t, "removed twice", h.vms.RemoveTemplate(t.Context(), "a"), vm.CodeTemplateNotFound)
	d.template.Store(true)
	h.close()
	setDefault = vm.StartMemory
	h.open()
	create("", vm.StartMemory, false)
	if fromMemory.Load() != 2 || booted.Load() != 1 {
		t.Errorf("counted %d starts from memory and %d boots, want 2 and 1", fromMemory.Load(), booted.Load())
	}
	h.close()
	withMemory = false
	h.open()
	create("", vm.StartBoot, true)
	if list, err := h.vms.Templates(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a driver without memory has templates %v (%v)", list, err)
	}
	wantCode(t, "without memory", h.vms.RemoveTemplate(t.Context(), "a"), vm.CodeNotSupported)
	q := h.request()
	q.Start = "cold"
	_, err := h.vms.Create(t.Context(), q, "")
	wantCode(t, "another start", err, vm.CodeInvalidField)
}
