package vm

import (
	"cmp"
	"fmt"

	"osx-builder/image"
)

const (
	diskStep = 1 << 20 // bytes; sizes of disks are rounded up to a multiple of it

	// defaultMaxDisk is the largest virtual disk that VMware has.
	defaultMaxDisk = 64 << 40 // bytes
)

// parseDisk reads the size of a machine's first disk. It returns the bytes, a multiple of 1 MiB, and the size as it was
// given in lower case. Both are zero if there is none. most is the largest size in bytes; 0 means 64 TiB.
func parseDisk(text string, most int64) (bytes int64, asked string, err error) {
	if text == "" {
		return 0, "", nil
	}
	most = cmp.Or(most, defaultMaxDisk)
	n, asked, err := parseSize("disk", text, bound{diskStep, "1mib"}, bound{uint64(most), mebibytes(most) + ", the limit of the setting -image-max-disk"}) // #nosec G115
	return roundUp(n, diskStep), asked, err
}

// checkDisk returns the size in bytes of the image's first disk, and an error if a machine of the request cannot have the
// size that it asks for. gold is the unpacked image, or zero while that is not there. The size is 0 then, and also if the
// request does not ask for one.
func (o *Options) checkDisk(s spec, gold image.Gold) (size int64, err error) {
	if s.Disk == 0 {
		return 0, nil
	}
	g, ok := o.Driver.(DiskGrower)
	if !ok {
		return 0, &Error{
			Code: CodeNotSupported, Field: "disk",
			Message: fmt.Sprintf("disk is %q, but machines on the hypervisor %s keep the size of their image's disk, which they are linked to; "+
				"leave disk out, make the disk larger in the image, or use QEMU (-driver qemu)", s.DiskText, o.Hypervisor),
		}
	}
	if gold.VMX == "" {
		return 0, nil
	}
	size, err = g.FirstDisk(gold.VMX)
	if err == nil && s.Disk < size {
		err = &Error{
			Code: CodeDiskTooSmall, Field: "disk",
			Message: fmt.Sprintf("disk is %q, but the image's first disk has %s, and a disk can only grow; ask for at least %s, or leave disk out", s.DiskText, mebibytes(size), mebibytes(size)),
		}
	}
	return size, err
}

// imageOf returns the unpacked image of a request. It is zero if that is not there.
func (o *Options) imageOf(s spec) image.Gold {
	src, err := s.source()
	if err != nil {
		return image.Gold{}
	}
	gold, _ := o.Images.Find(src.Sum)
	return gold
}

// warnGrown adds a warning if the machine's first disk is larger than size, the image's, because the daemon does not look
// into file systems.
func (c *creation) warnGrown(size int64) {
	if s := c.record.Spec; s.Disk > size {
		c.record.Warnings.Add(WarningDiskGrown, "the first disk has %s instead of the image's %s; the guest must grow its partition and its file system itself, "+
			"as cloud-init does, or growpart and resize2fs by hand", s.DiskText, mebibytes(size))
	}
}

// mebibytes writes a number of bytes as the smallest size in MiB that is not less.
func mebibytes(bytes int64) string { return fmt.Sprintf("%dmib", (bytes+diskStep-1)/diskStep) }
