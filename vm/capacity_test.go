package vm_test

import (
	"errors"
	"strings"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// Memory, except for the host's reserve, is promised to one machine only. It is
// free again once the machine fails or is destroyed, even after a restart.
func TestMemoryIsPromisedOnce(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver, o.MemoryReserve = limited{h.driver}, 1024 }
	h.open()
	q := h.request()
	q.Memory = "2gib"
	first := h.create(q)
	if _, err := h.vms.Create(t.Context(), q, "key"); codeOf(err) != vm.CodeNoCapacity ||
		!strings.Contains(err.Error(), "2048mib of the 3072mib") {
		t.Errorf("the second: got %v, want %s with its numbers", err, vm.CodeNoCapacity)
	}
	q.Memory = "4gib"
	if _, err := h.vms.Create(t.Context(), q, ""); codeOf(err) != vm.CodeInvalidField {
		t.Errorf("more than can ever be: got %v, want %s", err, vm.CodeInvalidField)
	}
	h.wait(first.ID)
	h.close()
	h.open()
	q.Memory = "2gib"
	if _, err := h.vms.Create(t.Context(), q, "key"); codeOf(err) != vm.CodeNoCapacity {
		t.Errorf("after the restart: got %v, want %s", err, vm.CodeNoCapacity)
	}
	must(t, h.vms.Destroy(t.Context(), first.ID))
	h.fail(vmtest.Clone, errors.New("no"))
	failed, err := h.vms.Create(t.Context(), q, "key")
	must(t, err)
	h.wait(failed.ID)
	h.driver.Hook = nil
	h.wait(h.create(q).ID)
}

// templated is a driver whose templates take memory.
type templated struct{ vm.Driver }

func (d templated) Limits() vm.Limits {
	return vm.Limits{CPUs: 8, Memory: 4096, HostCPUs: 4, Templates: 1024}
}

// The memory that templates take is not promised to machines.
func TestMemoryOfTemplates(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver, o.MemoryReserve = templated{h.driver}, 1024 }
	h.open()
	q := h.request()
	q.Memory = "2052mib"
	if _, err := h.vms.Create(t.Context(), q, ""); codeOf(err) != vm.CodeNoCapacity || !strings.Contains(err.Error(), "1024mib of them to templates") {
		t.Errorf("got %v, want %s with the templates' memory", err, vm.CodeNoCapacity)
	}
	if got := h.vms.Capacity().PromisedMiB; got != 1024 {
		t.Errorf("got %d MiB promised, want those of templates", got)
	}
	q.Memory = "2gib"
	h.wait(h.create(q).ID)
	if got := h.vms.Capacity().PromisedMiB; got != 3072 {
		t.Errorf("got %d MiB promised, want those of the machine and of templates", got)
	}
}

func TestMachinesAreBounded(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.VMs = 2 }
	h.open()
	first, err := h.vms.Create(t.Context(), h.request(), "first")
	must(t, err)
	h.wait(first.ID)
	h.wait(h.create(h.request()).ID)
	if _, err := h.vms.Create(t.Context(), h.request(), ""); codeOf(err) != vm.CodeNoCapacity || !strings.Contains(err.Error(), "-vms") {
		t.Errorf("the third: got %v, want %s that names -vms", err, vm.CodeNoCapacity)
	}
	if again, err := h.vms.Create(t.Context(), h.request(), "first"); err != nil || again.ID != first.ID {
		t.Errorf("a repetition: got %s, %v, want %s", again.ID, err, first.ID)
	}
	h.close()
	h.open()
	if _, err := h.vms.Create(t.Context(), h.request(), ""); codeOf(err) != vm.CodeNoCapacity {
		t.Errorf("after the restart: got %v, want %s", err, vm.CodeNoCapacity)
	}
	must(t, h.vms.Destroy(t.Context(), first.ID))
	h.wait(h.create(h.request()).ID)
}

// smallNetwork is a driver whose nat network has two addresses.
type smallNetwork struct{ *vmtest.Driver }

func (d smallNetwork) Limits() vm.Limits {
	l := d.Driver.Limits()
	l.Addresses = map[vm.NetworkType]int{vm.NAT: 2}
	return l
}

// A machine for which its network has no address left is refused at once, also after a restart. Other networks, and the
// places of machines that are gone, are free.
func TestAddressesAreBounded(t *testing.T) {
	h := newHarness(t)
	h.options = func(o *vm.Options) { o.Driver = smallNetwork{h.driver} }
	h.open()
	q := h.request()
	q.NetworkType = vm.NAT
	first := h.create(q)
	h.wait(first.ID)
	h.wait(h.create(q).ID)
	refused := func() {
		t.Helper()
		_, err := h.vms.Create(t.Context(), q, "")
		if codeOf(err) != vm.CodeNoCapacity || !strings.Contains(err.Error(), "nat network has addresses for 2 machines") {
			t.Errorf("got %v, want %s with the network and its addresses", err, vm.CodeNoCapacity)
		}
	}
	refused()
	other := q
	other.NetworkType = vm.HostOnly
	h.wait(h.create(other).ID)
	h.close()
	h.open()
	refused()
	must(t, h.vms.Destroy(t.Context(), first.ID))
	h.wait(h.create(q).ID)
	refused()
}
