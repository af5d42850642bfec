package vmx

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
)

// Bounds on the grains and tables of sparse files. VMware's technical note "Virtual Disk Format 1.1" describes them: a
// grain is a run of sectors, a grain table has an entry for each of 512 grains, and the grain directory has an entry for
// each table. Both QEMU and VMware read an entry of 0 as "not there".
const (
	// minGrain and maxGrain are in sectors. The note has "a power of 2 and greater than 8 (4KB)", and all known programs
	// write 128. A smaller grain makes the directory larger, and a larger one is a buffer that each reader allocates.
	minGrain = 8
	maxGrain = (1 << 20) / sectorSize

	// tableEntries is numGTEsPerGT. The note says that it is 512 in VMware's disks, and QEMU refuses more.
	tableEntries = 512
	entrySize    = 4
	tableSize    = tableEntries * entrySize

	// qemuTables is how many tables QEMU keeps in memory for each sparse file (L2_CACHE_SIZE in block/vmdk.c), besides
	// the whole directory and its copy.
	qemuTables = 16

	// maxLoaded is how many bytes of directories and tables QEMU may load for one machine, which it allocates besides the
	// machine's memory. A disk of 2 TiB with usual grains needs 0.5 MiB in one file and 33 MiB in 1,024.
	maxLoaded = 64 << 20

	// maxTables is how many bytes of tables Check reads in one image, in less than a second. That is as many as disks of
	// 16 TiB together need with usual grains.
	maxTables = 1 << 30
)

// Flags of a sparse header, and the algorithm of compressed grains.
const (
	flagNewlines = 1 << 0 // the header holds line ends, which a transfer as text changes
	flagCopy     = 1 << 1 // there is a second directory
	flagZeroes   = 1 << 2 // an entry of 1 is a grain of zeroes
	flagMarkers  = 1 << 17
	deflate      = 1
)

// newlines are at 73 in a header with flagNewlines.
const newlines = "\n \r\n"

// grains says where the grains of a sparse file are listed.
type grains struct {
	size       int64 // bytes of a grain
	capacity   int64 // bytes of the disk that the file holds
	directory  int64 // byte at which the directory begins
	entries    int64 // in the directory
	entrySize  int64 // bytes of an entry of the directory and the tables
	perTable   int64 // entries of a table
	loaded     int64 // bytes that QEMU loads
	compressed bool

	// table and grain return the byte of the file at which an entry says that its table or grain begins, or 0 if there is
	// none.
	table, grain func(entry uint64) (int64, error)
}

// readGrains reads the rest of the header of a hosted sparse file of size bytes: flags at 8, the grain's size at 20, the
// entries of a table at 44, the offsets of the second and the first directory at 48 and 56, the sectors before the first
// grain at 64, the algorithm at 77.
func readGrains(head []byte, capacity, size int64) (grains, error) {
	number := func(offset int) uint64 { return binary.LittleEndian.Uint64(head[offset:]) }
	flags, perTable := binary.LittleEndian.Uint32(head[8:]), binary.LittleEndian.Uint32(head[44:])
	grain, second, first, before := number(20), number(48), number(56), number(64)
	algorithm := binary.LittleEndian.Uint16(head[77:])
	sectors := uint64(size+sectorSize-1) / sectorSize // #nosec G115
	switch {
	case flags&flagNewlines != 0 && string(head[73:77]) != newlines:
		return grains{}, &CheckError{Key: "line ends", Value: string(head[73:77]), Reason: "a program that converts line ends has changed the file; copy the original again, as binary data"}
	case grain < minGrain || grain > maxGrain || bits.OnesCount64(grain) != 1:
		return grains{}, invalidField("grainSize", grain, "grains have a power of two of sectors, from 8 (4 KiB) to 2048 (1 MiB); convert the disk with qemu-img")
	case perTable != tableEntries:
		return grains{}, invalidField("numGTEsPerGT", uint64(perTable), "grain tables have 512 entries; convert the disk with qemu-img")
	case algorithm > deflate:
		return grains{}, invalidField("compressAlgorithm", uint64(algorithm), "only 0 (none) and 1 (deflate) are known")
	case algorithm == deflate && flags&flagMarkers == 0:
		return grains{}, invalidField("flags", uint64(flags), "compressed grains need markers; convert the disk with qemu-img")
	case before > sectors:
		return grains{}, invalidField("overHead", before, fmt.Sprintf("the file has only %d sectors; it is truncated", sectors))
	}
	perEntry := int64(grain) * tableEntries // #nosec G115
	g := grains{
		size: int64(grain) * sectorSize, capacity: capacity * sectorSize, // #nosec G115
		entries: (capacity + perEntry - 1) / perEntry, entrySize: entrySize, perTable: tableEntries,
		compressed: algorithm == deflate, table: atSector, grain: atSector,
	}
	if flags&flagZeroes != 0 {
		g.grain = atSectorUnlessZero
	}
	length := g.entries * entrySize
	g.loaded = length + qemuTables*tableSize
	if !fits(first, length, size) {
		return grains{}, invalidField("gdOffset", first, fmt.Sprintf("the grain directory of %d bytes reaches beyond the end of the file, which has %d bytes", length, size))
	}
	g.directory = int64(first) * sectorSize // #nosec G115
	if flags&flagCopy != 0 && second != 0 {
		if !fits(second, length, size) {
			return grains{}, invalidField("rgdOffset", second, fmt.Sprintf("the second grain directory of %d bytes reaches beyond the end of the file, which has %d bytes", length, size))
		}
		g.loaded += length
	}
	return g, nil
}

// atSector returns the byte of the sector that an entry of 32 bits names.
func atSector(entry uint64) (int64, error) { return int64(entry) * sectorSize, nil } // #nosec G115 -- 32 bits

// atSectorUnlessZero is atSector for grains of which an entry of 1 means zeroes.
func atSectorUnlessZero(entry uint64) (int64, error) {
	if entry == 1 {
		return 0, nil
	}
	return atSector(entry)
}

// fits reports whether length bytes from a sector on are within a file of size bytes and behind its header.
func fits(sector uint64, length, size int64) bool {
	return sector > 0 && sector <= uint64(maxSectors) && int64(sector)*sectorSize+length <= size // #nosec G115
}

func invalidField(key string, value uint64, reason string) *CheckError {
	return &CheckError{Key: key, Value: strconv.FormatUint(value, 10), Reason: reason}
}
