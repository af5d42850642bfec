package vm_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// listingDriver is a driver that lists its machines and reports changes.
type listingDriver struct {
	*vmtest.Driver
	lists, inspects atomic.Int32
	hide            atomic.Pointer[string] // a machine that is not in the lists
	fail            atomic.Bool
	changed         atomic.Pointer[func()]
}

func (d *listingDriver) List(ctx context.Context, machines []vm.Machine) (map[string]vm.Status, error) {
	d.lists.Add(1)
	if d.fail.Load() {
		return nil, errors.New("the lists are broken")
	}
	all := make(map[string]vm.Status)
	for _, m := range machines {
		st, err := d.Driver.Inspect(ctx, m)
		if hidden := d.hide.Load(); err == nil && st.Power != "" && (hidden == nil || *hidden != m.ID) {
			all[m.ID] = st
		}
	}
	return all, nil
}

func (d *listingDriver) Inspect(ctx context.Context, m vm.Machine) (vm.Status, error) {
	d.inspects.Add(1)
	return d.Driver.Inspect(ctx, m)
}

func (d *listingDriver) Watch(ctx context.Context, changed func()) error {
	d.changed.Store(&changed)
	<-ctx.Done()
	return ctx.Err()
}

// With a driver that lists machines, readers of all machines cost one list, and a machine that the list lacks is read
// by itself.
func TestListings(t *testing.T) {
	h := newHarness(t)
	d := &listingDriver{Driver: h.driver}
	h.options = func(o *vm.Options) { o.Driver = d }
	h.open()
	var ids []string
	for range 5 {
		ids = append(ids, h.wait(h.create(h.request()).ID).ID)
	}
	d.lists.Store(0)
	d.inspects.Store(0)
	list, err := h.vms.List(t.Context(), vm.Filter{Status: vm.PoweredOn}, everyone)
	must(t, err)
	if len(list) != 5 || list[0].IPAddress == "" || d.lists.Load() != 1 || d.inspects.Load() != 0 {
		t.Errorf("got %d machines with %d lists and %d inspections, want 5 with 1 and 0", len(list), d.lists.Load(), d.inspects.Load())
	}
	counts, err := h.vms.StateCounts(t.Context())
	must(t, err)
	if counts[vm.State{Phase: vm.Ready, Status: vm.PoweredOn}] != 5 || d.inspects.Load() != 0 {
		t.Errorf("got counts %v with %d inspections, want 5 machines with none", counts, d.inspects.Load())
	}
	d.hide.Store(&ids[2])
	list, err = h.vms.List(t.Context(), vm.Filter{Status: vm.PoweredOn}, everyone)
	must(t, err)
	if len(list) != 5 || d.inspects.Load() != 1 {
		t.Errorf("with a machine that the list lacks: got %d machines with %d inspections, want 5 with 1", len(list), d.inspects.Load())
	}
	d.fail.Store(true)
	list, err = h.vms.List(t.Context(), vm.Filter{}, everyone)
	must(t, err)
	if len(list) != 5 || list[0].Error == nil || list[0].Error.Code != vm.CodeOpen {
		t.Errorf("with a list that fails: got %+v, want 5 machines with code %s", list, vm.CodeOpen)
	}
}

// A change that the driver reports becomes an event, without waiting for the next list.
func TestListingsEvents(t *testing.T) {
	h := newHarness(t)
	d := &listingDriver{Driver: h.driver}
	h.options = func(o *vm.Options) { o.Driver = d }
	h.open()
	v := h.wait(h.create(h.request()).ID)
	l, err := h.vms.Listen("", everyone)
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	defer cancel()
	for d.changed.Load() == nil || d.lists.Load() == 0 {
		if ctx.Err() != nil {
			t.Fatal("the Manager does not watch")
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(t, d.SetPower(vm.Machine{ID: v.ID, Dir: filepath.Join(h.dir, "vms", v.ID)}, vm.Suspended))
	(*d.changed.Load())()
	for {
		e, err := l.Next(ctx)
		must(t, err)
		if e.ID == v.ID && e.Status == vm.Suspended {
			return
		}
	}
}
