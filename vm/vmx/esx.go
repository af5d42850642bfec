package vmx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"os"
)

// Tables of the extents of ESX disks. The note describes those that begin with COWD ("ESX Server Sparse Extents"), of
// which a grain may be one sector; the others are known from QEMU's block/vmdk.c only.
const (
	cowdTableEntries     = 4096
	seSparseTableEntries = 4096
	seSparseEntrySize    = 8
	seSparseGrain        = 8                                    // sectors
	seSparseTableSectors = seSparseTableEntries * seSparseGrain // sectors of the disk for each entry of the directory
	seSparseVersion      = 2<<32 | 1
)

// readCOWD reads the header of an extent of an ESX disk: the capacity is at 12, the grain's size at 16, the offset and
// the entries of the directory at 20 and 24. All are numbers of 32 bits.
func readCOWD(head []byte, sectors, size int64) (grains, error) {
	if len(head) < sectorSize {
		return grains{}, &CheckError{Reason: "the file is truncated in its header"}
	}
	number := func(offset int) uint64 { return uint64(binary.LittleEndian.Uint32(head[offset:])) }
	capacity, grain, directory, entries := number(12), number(16), number(20), number(24)
	switch {
	case capacity != uint64(sectors): // #nosec G115
		return grains{}, wrongCapacity(capacity, sectors)
	case grain == 0 || grain > maxGrain || bits.OnesCount64(grain) != 1:
		return grains{}, invalidField("grainSize", grain, "grains of an ESX disk have a power of two of sectors, from 1 to 2048 (1 MiB)")
	}
	// VMware's directories end with a sector.
	need := (capacity + grain*cowdTableEntries - 1) / (grain * cowdTableEntries)
	if most := (need + 127) / 128 * 128; entries < need || entries > most {
		return grains{}, invalidField("numGDEntries", entries, fmt.Sprintf("the capacity needs a grain directory of %d to %d entries", need, most))
	}
	length := int64(entries) * entrySize // #nosec G115
	if !fits(directory, length, size) {
		return grains{}, invalidField("gdOffset", directory, fmt.Sprintf("the grain directory of %d bytes reaches beyond the end of the file, which has %d bytes", length, size))
	}
	return grains{
		size: int64(grain) * sectorSize, capacity: sectors * sectorSize, // #nosec G115
		directory: int64(directory) * sectorSize, entries: int64(need), // #nosec G115
		entrySize: entrySize, perTable: cowdTableEntries, loaded: length + qemuTables*cowdTableEntries*entrySize,
		table: atSector, grain: atSector,
	}, nil
}

// readSESparse reads the header of an extent of a newer ESX disk: the version at 8, the capacity at 16, the sectors of a
// grain and of a table at 24 and 32, the offset of the second header at 80, the offset and the sectors of the directory at
// 128 and 136, the offsets of the tables and the grains at 144 and 192. All are numbers of 64 bits.
func readSESparse(file *os.File, head []byte, sectors, size int64) (grains, error) {
	if len(head) < sectorSize {
		return grains{}, &CheckError{Reason: "the file is truncated in its header"}
	}
	number := func(offset int) uint64 { return binary.LittleEndian.Uint64(head[offset:]) }
	capacity, directory, length, tables, first := number(16), number(128), number(136), number(144), number(192)
	need := (uint64(sectors) + seSparseTableSectors - 1) / seSparseTableSectors // #nosec G115
	switch {
	case number(8) != seSparseVersion:
		return grains{}, invalidField("version", number(8), "only version 2.1 of these disks is known")
	case bytes.Count(head[40:80], []byte{0})+bytes.Count(head[208:sectorSize], []byte{0}) != 40+sectorSize-208:
		return grains{}, invalidField("flags", number(40), "the header has fields that are not known; clone the disk with vmkfstools")
	case number(24) != seSparseGrain || number(32) != seSparseTableEntries*seSparseEntrySize/sectorSize:
		return grains{}, invalidField("grain size", number(24), "grains have 8 sectors and their tables 64")
	case capacity != uint64(sectors): // #nosec G115
		return grains{}, wrongCapacity(capacity, sectors)
	case length > math.MaxInt32/sectorSize || length*sectorSize/seSparseEntrySize < need:
		return grains{}, invalidField("grain directory size", length, fmt.Sprintf("the capacity needs a grain directory of %d entries of 8 bytes", need))
	case !fits(directory, int64(length)*sectorSize, size): // #nosec G115
		return grains{}, invalidField("grain directory offset", directory, fmt.Sprintf("the grain directory of %d sectors reaches beyond the end of the file, which has %d bytes", length, size))
	case tables > uint64(maxSectors) || first > uint64(maxSectors):
		return grains{}, invalidField("grain tables offset", max(tables, first), "the tables and grains begin beyond 64 TiB")
	}
	if err := checkJournal(file, number(80)); err != nil {
		return grains{}, err
	}
	return grains{
		size: seSparseGrain * sectorSize, capacity: sectors * sectorSize,
		directory: int64(directory) * sectorSize, entries: int64(need), // #nosec G115
		entrySize: seSparseEntrySize, perTable: seSparseTableEntries,
		loaded: int64(length)*sectorSize + qemuTables*seSparseTableEntries*seSparseEntrySize,      // #nosec G115
		table:  func(entry uint64) (int64, error) { return seSparseTable(entry, int64(tables)) },  // #nosec G115
		grain:  func(entry uint64) (int64, error) { return seSparseGrainAt(entry, int64(first)) }, // #nosec G115
	}, nil
}

// checkJournal refuses a disk with changes that its writer did not finish, which the second header says at 24. QEMU does
// not open such a disk.
func checkJournal(file *os.File, sector uint64) error {
	if sector == 0 || sector > uint64(maxSectors) {
		return invalidField("volatile header offset", sector, "the second header is not within the file")
	}
	head, err := readAt(file, int64(sector)*sectorSize, sectorSize) // #nosec G115
	if err != nil {
		return err
	}
	if len(head) < sectorSize || binary.LittleEndian.Uint64(head) != 0xcafecafe {
		return invalidField("volatile header offset", sector, "there is no second header; the file is truncated or damaged")
	}
	if binary.LittleEndian.Uint64(head[24:]) != 0 {
		return &CheckError{Key: "replayJournal", Value: "1", Reason: "the disk was not closed; start the machine once on its host, shut it down, and pack it again"}
	}
	return nil
}

// seSparseTable returns the byte at which a table begins. The tables follow each other from a sector on.
func seSparseTable(entry uint64, tables int64) (int64, error) {
	const allocated, number = 0x1 << 60, 0xffffffff
	switch {
	case entry == 0:
		return 0, nil
	case entry&^uint64(number) != allocated:
		return 0, invalidField("grain directory", entry, "the entry has an unknown form; the file is damaged")
	}
	return tables*sectorSize + int64(entry&number)*seSparseTableEntries*seSparseEntrySize, nil // #nosec G115
}

// seSparseGrainAt returns the byte at which a grain begins. The grains follow each other from a sector on. The upper
// four bits of an entry are its kind, and the next twelve are the lowest of the grain's number.
func seSparseGrainAt(entry uint64, first int64) (int64, error) {
	switch entry >> 60 {
	case 0:
		if entry != 0 {
			return 0, invalidField("grain", entry, "the entry has an unknown form; the file is damaged")
		}
		return 0, nil
	case 1, 2: // the guest has given the grain back, or it is all zeroes
		return 0, nil
	case 3:
		number := entry>>48&0xfff | entry&0xffffffffffff<<12
		if number > uint64(maxSectors) {
			return 0, invalidField("grain", entry, "the grain is beyond 64 TiB; the file is damaged")
		}
		return (first + int64(number)*seSparseGrain) * sectorSize, nil // #nosec G115
	}
	return 0, invalidField("grain", entry, "the entry has an unknown form; the file is damaged")
}
