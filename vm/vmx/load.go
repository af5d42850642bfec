package vmx

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"
)

// Tables of the extents of ESX disks. The note describes those that begin with COWD ("ESX Server Sparse Extents"), of
// which a grain may be one sector; the others are known from QEMU's block/vmdk.c only.
const (
	cowdTableEntries     = 4096
	seSparseTableEntries = 4096
	seSparseEntrySize    = 8
	seSparseTableSectors = 4096 * 8 // sectors of the disk for each entry of the directory
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
	switch kind {
	case formatCOWD:
		return c.checkCOWD(head, sectors, info.Size())
	case formatSESparse:
		return c.checkSESparse(head, sectors, info.Size())
	}
	h, err := readSparseHeader(file, head, info.Size())
	if err != nil {
		return err
	}
	// Some programs round the capacity up to whole grains, which moves no other extent if it is the last.
	grain := h.grains.size / sectorSize
	if rounded := (sectors + grain - 1) / grain * grain; h.capacity != sectors && (!last || h.capacity != rounded) {
		return wrongCapacity(uint64(h.capacity), sectors) // #nosec G115
	}
	if err := c.load(h.grains.loaded); err != nil {
		return err
	}
	_, err = c.counter.allocated(file, h.grains, info.Size())
	return err
}

func wrongCapacity(capacity uint64, sectors int64) error {
	return invalidField("capacity", capacity, fmt.Sprintf("the header has another number of sectors than the descriptor, which has %d", sectors))
}

// checkCOWD checks an extent with the header of an ESX disk: the capacity is at 12, the grain's size at 16, the offset and
// the entries of the directory at 20 and 24. All are numbers of 32 bits.
func (c *checker) checkCOWD(head []byte, sectors, size int64) error {
	if len(head) < sectorSize {
		return &CheckError{Reason: "the file is truncated in its header"}
	}
	number := func(offset int) uint64 { return uint64(binary.LittleEndian.Uint32(head[offset:])) }
	capacity, grain, directory, entries := number(12), number(16), number(20), number(24)
	switch {
	case capacity != uint64(sectors): // #nosec G115
		return wrongCapacity(capacity, sectors)
	case grain == 0 || grain > maxGrain || bits.OnesCount64(grain) != 1:
		return invalidField("grainSize", grain, "grains of an ESX disk have a power of two of sectors, from 1 to 2048 (1 MiB)")
	}
	// VMware's directories end with a sector.
	need := (capacity + grain*cowdTableEntries - 1) / (grain * cowdTableEntries)
	if most := (need + 127) / 128 * 128; entries < need || entries > most {
		return invalidField("numGDEntries", entries, fmt.Sprintf("the capacity needs a grain directory of %d to %d entries", need, most))
	}
	length := int64(entries) * entrySize // #nosec G115
	if !fits(directory, length, size) {
		return invalidField("gdOffset", directory, fmt.Sprintf("the grain directory of %d bytes reaches beyond the end of the file, which has %d bytes", length, size))
	}
	return c.load(length + qemuTables*cowdTableEntries*entrySize)
}

// checkSESparse checks an extent with the header of a newer ESX disk: the capacity is at 16, the offset and the sectors
// of the directory at 128 and 136. All are numbers of 64 bits.
func (c *checker) checkSESparse(head []byte, sectors, size int64) error {
	if len(head) < sectorSize {
		return &CheckError{Reason: "the file is truncated in its header"}
	}
	number := func(offset int) uint64 { return binary.LittleEndian.Uint64(head[offset:]) }
	capacity, directory, length := number(16), number(128), number(136)
	need := (uint64(sectors) + seSparseTableSectors - 1) / seSparseTableSectors // #nosec G115
	switch {
	case capacity != uint64(sectors): // #nosec G115
		return wrongCapacity(capacity, sectors)
	case length > math.MaxInt32/sectorSize || length*sectorSize/seSparseEntrySize < need:
		return invalidField("grain directory size", length, fmt.Sprintf("the capacity needs a grain directory of %d entries of 8 bytes", need))
	case !fits(directory, int64(length)*sectorSize, size): // #nosec G115
		return invalidField("grain directory offset", directory, fmt.Sprintf("the grain directory of %d sectors reaches beyond the end of the file, which has %d bytes", length, size))
	}
	return c.load(int64(length)*sectorSize + qemuTables*seSparseTableEntries*seSparseEntrySize) // #nosec G115
}
