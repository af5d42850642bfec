package vm

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"osx-builder/image"
)

// keptTimeout bounds listing and removing the images that the hypervisor keeps.
const keptTimeout = time.Minute

// keptImages knows the images that the hypervisor keeps besides the cache. Without
// an ImageKeeper there are none.
type keptImages struct {
	driver Driver
	tasks  *tasks
	log    *slog.Logger
}

// list returns the images by their names. If the hypervisor does not list them, the
// cache's are shown alone.
func (k *keptImages) list() (map[string]KeptImage, error) {
	keeper, ok := k.driver.(ImageKeeper)
	if !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(k.tasks.ctx, inspectTimeout)
	defer cancel()
	list, err := keeper.KeptImages(ctx)
	if err != nil {
		k.log.Warn("the images on the hypervisor were not listed", "err", err)
		return nil, err
	}
	all := make(map[string]KeptImage, len(list))
	for _, one := range list {
		all[one.Image] = one
	}
	return all, nil
}

// merge adds what the hypervisor keeps to the list of the cache's images. Images
// that only the hypervisor has come last.
func (k *keptImages) merge(list []CachedImage) []CachedImage {
	kept, _ := k.list() // it is logged
	for i := range list {
		name := list[i].ChecksumType + "-" + list[i].Checksum
		list[i].VMs = max(list[i].VMs, kept[name].Machines)
		delete(kept, name)
	}
	first := len(list)
	for _, one := range kept {
		sum, err := image.FindSum(one.Image)
		if err != nil {
			continue
		}
		list = append(list, CachedImage{
			Checksum: sum.Hex, ChecksumType: sum.Type, Bytes: one.Bytes, CreatedAt: one.CreatedAt, LastUsedAt: one.CreatedAt, VMs: one.Machines, Phase: ImageReady,
		})
	}
	slices.SortFunc(list[first:], func(a, b CachedImage) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return list
}

// remove removes an image from the cache and from the hypervisor. Nothing is removed
// while a machine needs it, also one of another daemon.
func (k *keptImages) remove(images *image.Cache, sum image.Sum) error {
	keeper, ok := k.driver.(ImageKeeper)
	if !ok {
		return images.Remove(sum)
	}
	list, err := images.List()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(e image.Entry) bool { return e.Sum == sum && e.InUse > 0 }) {
		return images.Remove(sum) // which says how many machines need it
	}
	kept, err := k.list()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(k.tasks.ctx, keptTimeout)
	defer cancel()
	if err := keeper.RemoveImage(ctx, sum.String()); err != nil {
		return err
	}
	err = images.Remove(sum)
	if _, was := kept[sum.String()]; was && errors.Is(err, image.ErrNotFound) {
		return nil
	}
	return err
}
