package vm_test

import (
	"context"
	"sync"
	"testing"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

// keepingDriver keeps images.
type keepingDriver struct {
	*vmtest.Driver
	mu   sync.Mutex
	kept []vm.KeptImage
}

func (d *keepingDriver) KeptImages(context.Context) ([]vm.KeptImage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]vm.KeptImage(nil), d.kept...), nil
}

func (d *keepingDriver) RemoveImage(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, k := range d.kept {
		if k.Image == name && k.Machines > 0 {
			return &vm.Error{Code: vm.CodeImageInUse, Message: "machines are linked to it"}
		}
		if k.Image == name {
			d.kept = append(d.kept[:i], d.kept[i+1:]...)
			return nil
		}
	}
	return nil
}

func (d *keepingDriver) set(kept ...vm.KeptImage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept = kept
}

// Images on the hypervisor are listed with the cache's, count as in use for the machines of other daemons, and are
// removed with the cache's.
func TestKeptImages(t *testing.T) {
	h := newHarness(t)
	d := &keepingDriver{Driver: h.driver}
	h.options = func(o *vm.Options) { o.Driver = d }
	h.open()
	q := h.request()
	must(t, h.vms.Destroy(t.Context(), h.wait(h.create(q).ID).ID))
	name := "sha256-" + q.Image.Checksum
	const only = "md5-d41d8cd98f00b204e9800998ecf8427e"
	d.set(vm.KeptImage{Image: name, Machines: 2}, vm.KeptImage{Image: only, Bytes: 7})
	list, err := h.vms.Images().List()
	if err != nil || len(list) != 2 || list[0].VMs != 2 || list[0].URL == "" || list[1].ChecksumType+"-"+list[1].Checksum != only || list[1].Bytes != 7 {
		t.Errorf("got %+v, %v, want the cache's image with 2 machines, then %s", list, err, only)
	}
	wantCode(t, "while another daemon's machines need it", h.vms.Images().Remove(t.Context(), name), vm.CodeImageInUse)
	if list, err = h.vms.Images().List(); err != nil || len(list) != 2 {
		t.Errorf("after that: got %+v, %v, want both images", list, err)
	}
	d.set(vm.KeptImage{Image: name}, vm.KeptImage{Image: only})
	must(t, h.vms.Images().Remove(t.Context(), name))
	must(t, h.vms.Images().Remove(t.Context(), only))
	wantCode(t, "once removed", h.vms.Images().Remove(t.Context(), only), vm.CodeImageNotFound)
	if list, err = h.vms.Images().List(); err != nil || len(list) != 0 {
		t.Errorf("in the end: got %+v, %v, want none", list, err)
	}
}
