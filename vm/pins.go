package vm

import (
	"time"

	"osx-builder/image"
)

// pinHolder begins the name under which a pin holds its image in the cache.
const pinHolder = "pin "

// Pin sets whether an image, named as for Get, is exempt from being removed to make room. An image that is still being
// pulled can be pinned too.
func (i *Images) Pin(ref string, pinned bool) (CachedImage, error) {
	c, err := i.Get(ref)
	if err != nil || c.Pinned == pinned {
		return c, err
	}
	sum := image.Sum{Type: c.ChecksumType, Hex: c.Checksum}
	if pinned {
		i.cache.Hold(pinHolder+sum.String(), sum)
	}
	i.mu.Lock()
	r, under := i.records[sum], i.pulls[sum] != nil
	if r == nil {
		now := time.Now().UTC()
		r = &imageRecord{
			Version: recordVersion, Image: Image{URL: c.URL, Checksum: c.Checksum, ChecksumType: c.ChecksumType},
			Phase: c.Phase, CreatedAt: now, UpdatedAt: now,
		}
		i.records[sum] = r
	}
	r.Pinned = pinned
	copied := *r
	keep := pinned || under || r.Phase == ImageFailed
	if !keep {
		delete(i.records, sum)
	}
	i.mu.Unlock()
	if !pinned {
		i.cache.Release(pinHolder + sum.String())
	}
	if keep {
		err = i.write(sum, copied)
	} else {
		err = i.removeRecord(sum)
	}
	if err != nil {
		return CachedImage{}, err
	}
	return i.Get(sum.String())
}
