package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"osx-builder/vm"
	"osx-builder/vm/qemu/template"
)

var (
	_ vm.TemplateLister  = (*Driver)(nil)
	_ vm.TemplateRemover = (*Driver)(nil)
)

// Templates lists the templates on the disk.
func (d *Driver) Templates(context.Context) ([]vm.Template, error) {
	list, err := d.memory.store.List()
	if err != nil {
		return nil, err
	}
	all := make([]vm.Template, 0, len(list))
	for _, u := range list {
		t := vm.Template{
			Key: u.Key, CPUs: u.CPUs, Memory: vm.MemoryText(u.Memory), NetworkType: vm.NetworkType(u.Network), Agent: u.Agent,
			MemoryBytes: u.MemoryBytes, DiskBytes: u.DiskBytes, CreatedAt: u.CreatedAt,
		}
		t.ChecksumType, t.Checksum, _ = strings.Cut(u.Image, "-") // as the image cache names an image's folder
		if !u.UsedAt.IsZero() {
			at := u.UsedAt.UTC()
			t.LastUsedAt = &at
		}
		all = append(all, t)
	}
	return all, nil
}

// RemoveTemplate removes a template. It also forgets why the last one of this key
// could not be made.
func (d *Driver) RemoveTemplate(_ context.Context, key string) error {
	d.memory.mu.Lock()
	_, failed := d.memory.failed[key]
	delete(d.memory.failed, key)
	d.memory.mu.Unlock()
	err := d.memory.store.Remove(key)
	if errors.Is(err, template.ErrNotFound) && !failed {
		return &vm.Error{
			Code:    vm.CodeTemplateNotFound,
			Message: fmt.Sprintf("there is no template %.64q; GET /templates lists them", key),
			Err:     err,
		}
	}
	if failed && errors.Is(err, template.ErrNotFound) {
		return nil
	}
	return err
}
