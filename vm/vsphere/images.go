package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"osx-builder/vm"
)

var (
	_ vm.ImageKeeper   = (*Driver)(nil)
	_ vm.ImagePreparer = (*Driver)(nil)
)

// PrepareImage implements [vm.ImagePreparer]: it imports the image, so that its first machine does not wait for that.
func (d *Driver) PrepareImage(ctx context.Context, gold string) error {
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	m := vm.Machine{}
	for t := range s.networks {
		m.Network = t // each clone gets its own
	}
	_, err = d.imports.ensure(ctx, s, m, gold)
	return d.explain("importing the image", err)
}

// KeptImages implements [vm.ImageKeeper]: it lists the templates on the datastore, with the machines of all data folders
// that are linked to them. It takes one call.
func (d *Driver) KeptImages(ctx context.Context) ([]vm.KeptImage, error) {
	s, err := d.site(ctx)
	if err != nil {
		return nil, err
	}
	list, _, err := d.templates(ctx, s)
	if err != nil {
		return nil, d.explain("listing the templates", err)
	}
	return list, nil
}

// templates returns the whole templates on the datastore, and where they are.
func (d *Driver) templates(ctx context.Context, s *site) (list []vm.KeptImage, at []ref, err error) {
	objects, err := children(ctx, s.client, s.folder, "name", "config.extraConfig", "config.annotation", "summary.storage", "config.createDate")
	if err != nil {
		return nil, nil, err
	}
	clones := make(map[string]int)
	all := loadMachines(objects)
	for _, c := range all {
		clones[c.marks[markTemplate]]++
	}
	for _, c := range all {
		image := c.marks[markImage]
		if c.marks[markID] != "" || image == "" || !c.whole() || c.Name != templateName(image, s.datastoreName) {
			continue
		}
		kept := vm.KeptImage{Image: image, Machines: clones[c.Name]}
		if storage := c.Summary.Storage; storage != nil {
			kept.Bytes = storage.Committed
		}
		if c.Config.CreateDate != nil {
			kept.CreatedAt = c.Config.CreateDate.UTC()
		}
		list, at = append(list, kept), append(at, c.at)
	}
	return list, at, nil
}

// RemoveImage implements [vm.ImageKeeper]: it removes the image's template, unless machines of any data folder are linked
// to it. A stand-alone ESXi would remove the disks below them.
func (d *Driver) RemoveImage(ctx context.Context, image string) error {
	s, err := d.site(ctx)
	if err != nil {
		return err
	}
	unlock, err := d.imports.lock(ctx, templateName(image, s.datastoreName))
	if err != nil {
		return err
	}
	defer unlock()
	list, at, err := d.templates(ctx, s)
	if err != nil {
		return d.explain("listing the templates", err)
	}
	i := slices.IndexFunc(list, func(k vm.KeptImage) bool { return k.Image == image })
	switch {
	case i < 0:
		return nil
	case list[i].Machines > 0:
		return &vm.Error{Code: vm.CodeImageInUse, Message: fmt.Sprintf("%d machines on vSphere, also those of other daemons, are linked to the image's template; remove them first", list[i].Machines)}
	}
	err = s.remove(ctx, at[i])
	if isFault[*types.NotSupported](err) && strings.Contains(err.Error(), "linked") {
		return &vm.Error{Code: vm.CodeImageInUse, Message: "machines on vSphere are linked to the image's template; remove them first", Err: err}
	}
	return d.explain("removing the template", err)
}
