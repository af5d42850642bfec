package vm_test

import (
	"context"
	"slices"
	"testing"

	"osx-builder/vm"
)

// templatingDriver is a driver with templates, by their keys.
type templatingDriver struct {
	vm.Driver
	templates map[string]string // the checksum of each one's image
}

func (d *templatingDriver) Templates(context.Context) (list []vm.Template, err error) {
	for key, checksum := range d.templates {
		list = append(list, vm.Template{Key: key, Checksum: checksum, ChecksumType: "sha256"})
	}
	return list, nil
}

func (d *templatingDriver) RemoveTemplate(_ context.Context, key string) error {
	delete(d.templates, key)
	return nil
}

// An image that a client removes takes its templates with it, and no others.
func TestTemplatesGoWithTheirImage(t *testing.T) {
	h := newHarness(t)
	d := &templatingDriver{h.driver, map[string]string{"one": h.request().Image.Checksum, "two": h.request().Image.Checksum, "other": "00"}}
	h.options = func(o *vm.Options) { o.Driver = d }
	h.open()
	h.pull()
	must(t, h.vms.Images().Remove(t.Context(), h.pulled().Checksum))
	list, err := h.vms.Templates(t.Context())
	must(t, err)
	if len(list) != 1 || !slices.ContainsFunc(list, func(t vm.Template) bool { return t.Key == "other" }) {
		t.Errorf("got %+v, want the other image's template alone", list)
	}
}
