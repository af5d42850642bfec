package vmx

import (
	"fmt"
	"os"
	"strconv"
)

// use refuses a file that holds two parts of the machine's disks. Hypervisors open it twice, load its tables twice, and
// a guest that writes one part changes the other.
func (c *checker) use(at, by string) error {
	if other, used := c.usedBy[at]; used {
		return &CheckError{Reason: fmt.Sprintf("the file is used twice, in %s and %s; each extent needs a file of its own", printable(other), printable(by))}
	}
	c.usedBy[at] = by
	return nil
}

// load adds bytes that QEMU loads for the machine.
func (c *checker) load(n int64) error {
	if c.loaded += n; c.loaded > maxLoaded {
		return &CheckError{Reason: fmt.Sprintf("a hypervisor would load %d bytes of grain directories and tables for the image's disks up to this one; the limit is %d: consolidate snapshots, or use fewer extents", c.loaded, int64(maxLoaded))}
	}
	return nil
}

// checkSize holds a disk to the limit.
func (c *checker) checkSize(v VMDK) error {
	if c.maxDisk > 0 && v.Capacity > c.maxDisk {
		return &CheckError{Key: "capacity", Value: strconv.FormatInt(v.Capacity, 10), Reason: fmt.Sprintf("the virtual disk has more than %d bytes, the limit of the setting -image-max-disk", c.maxDisk)}
	}
	return nil
}

// checkEmbedded checks the tables of a sparse file that contains its descriptor.
func (c *checker) checkEmbedded(name string, v VMDK) error {
	file, err := openRegular(c.root, name)
	if err != nil {
		return err
	}
	defer file.Close()
	head, err := readAt(file, 0, headerSize)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	sectors := v.Extents[0].Sectors
	if len(v.listed) > 0 {
		sectors = 0
		for _, e := range v.listed {
			sectors += e.Sectors
		}
	}
	return c.checkTables(file, formatSparse, head, sectors, true)
}

// checkTables checks the tables of a sparse file for which the descriptor has a number of sectors. last is true for the
// last extent of a disk.
func (c *checker) checkTables(file *os.File, kind format, head []byte, sectors int64, last bool) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", file.Name(), err)
	}
	var g grains
	switch kind {
	case formatCOWD:
		g, err = readCOWD(head, sectors, info.Size())
	case formatSESparse:
		g, err = readSESparse(file, head, sectors, info.Size())
	default:
		g, err = readHosted(file, head, sectors, info.Size(), last)
	}
	if err != nil {
		return err
	}
	if err := c.load(g.loaded); err != nil {
		return err
	}
	_, err = c.counter.allocated(file, g, info.Size())
	return err
}

// readHosted reads the header of a hosted sparse extent.
func readHosted(file *os.File, head []byte, sectors, size int64, last bool) (grains, error) {
	h, err := readSparseHeader(file, head, size)
	if err != nil {
		return grains{}, err
	}
	// Some programs round the capacity up to whole grains, which moves no other extent if it is the last.
	grain := h.grains.size / sectorSize
	if rounded := (sectors + grain - 1) / grain * grain; h.capacity != sectors && (!last || h.capacity != rounded) {
		return grains{}, wrongCapacity(uint64(h.capacity), sectors) // #nosec G115
	}
	return h.grains, nil
}

func wrongCapacity(capacity uint64, sectors int64) error {
	return invalidField("capacity", capacity, fmt.Sprintf("the header has another number of sectors than the descriptor, which has %d", sectors))
}
