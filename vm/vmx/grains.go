package vmx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
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
	flagCopy   = 1 << 1 // there is a second directory
	flagZeroes = 1 << 2 // an entry of 1 is a grain of zeroes
	deflate    = 1
)

// grains says where the grains of a sparse file are listed.
type grains struct {
	size       int64 // bytes of a grain
	directory  int64 // byte at which the directory begins
	entries    int64 // in the directory
	loaded     int64 // bytes that QEMU loads
	compressed bool
	zeroes     bool // an entry of 1 is a grain of zeroes
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
	case grain < minGrain || grain > maxGrain || bits.OnesCount64(grain) != 1:
		return grains{}, invalidField("grainSize", grain, "grains have a power of two of sectors, from 8 (4 KiB) to 2048 (1 MiB); convert the disk with qemu-img")
	case perTable != tableEntries:
		return grains{}, invalidField("numGTEsPerGT", uint64(perTable), "grain tables have 512 entries; convert the disk with qemu-img")
	case algorithm > deflate:
		return grains{}, invalidField("compressAlgorithm", uint64(algorithm), "only 0 (none) and 1 (deflate) are known")
	case before > sectors:
		return grains{}, invalidField("overHead", before, fmt.Sprintf("the file has only %d sectors; it is cut short", sectors))
	}
	perEntry := int64(grain) * tableEntries // #nosec G115
	g := grains{
		size: int64(grain) * sectorSize, entries: (capacity + perEntry - 1) / perEntry, // #nosec G115
		compressed: algorithm == deflate, zeroes: flags&flagZeroes != 0,
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

// fits reports whether length bytes from a sector on are within a file of size bytes and behind its header.
func fits(sector uint64, length, size int64) bool {
	return sector > 0 && sector <= uint64(maxSectors) && int64(sector)*sectorSize+length <= size // #nosec G115
}

func invalidField(key string, value uint64, reason string) *CheckError {
	return &CheckError{Key: key, Value: strconv.FormatUint(value, 10), Reason: reason}
}

// grainCounter counts grains in the tables of sparse files.
type grainCounter struct {
	tables int64 // bytes of tables that it read
}

// allocated returns how many bytes of a disk the grains in a file of size bytes hold. It refuses tables and grains that
// are outside of the file, and more of them than fit into it: of a file that lists one grain many times, little would
// become a lot. A compressed grain takes at least a sector.
func (c *grainCounter) allocated(file *os.File, g grains, size int64) (int64, error) {
	var tables, count int64
	var first, run int64 // tables that follow each other are read at once
	sectors := (size + sectorSize - 1) / sectorSize
	flush := func() error {
		n, err := countGrains(file, g, first, run, sectors)
		count += n
		run = 0
		return err
	}
	directory := io.NewSectionReader(file, g.directory, g.entries*entrySize)
	err := eachEntry(directory, func(entry int64) error {
		if entry == 0 {
			return nil
		}
		at := entry * sectorSize
		if at+tableSize > size {
			return &CheckError{Key: "grain table", Value: strconv.FormatInt(entry, 10), Reason: fmt.Sprintf("the table is not within the file, which has %d sectors", sectors)}
		}
		if tables++; tables*tableSize > size {
			return &CheckError{Key: "grain directory", Value: strconv.FormatInt(tables, 10), Reason: fmt.Sprintf("the directory lists more tables than fit into the file, which has %d bytes", size)}
		}
		if c.tables += tableSize; c.tables > maxTables {
			return &CheckError{Reason: fmt.Sprintf("the image's disks have more than %d bytes of grain tables; make them smaller, or their grains larger", int64(maxTables))}
		}
		if run > 0 && at != first+run {
			if err := flush(); err != nil {
				return err
			}
		}
		if run == 0 {
			first = at
		}
		run += tableSize
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return 0, err
	}
	least := g.size
	if g.compressed {
		least = sectorSize
	}
	// The last grain may be written in part.
	if (count-1)*least > size {
		return 0, &CheckError{Key: "grain tables", Value: strconv.FormatInt(count, 10), Reason: fmt.Sprintf("the tables list more grains than fit into the file, which has %d bytes", size)}
	}
	return count * g.size, nil
}

// countGrains returns how many grains the tables in a run of bytes list.
func countGrains(file *os.File, g grains, offset, length, sectors int64) (n int64, err error) {
	err = eachEntry(io.NewSectionReader(file, offset, length), func(entry int64) error {
		if entry == 0 || entry == 1 && g.zeroes {
			return nil
		}
		if entry >= sectors {
			return &CheckError{Key: "grain", Value: strconv.FormatInt(entry, 10), Reason: fmt.Sprintf("the grain begins beyond the end of the file, which has %d sectors; it is cut short", sectors)}
		}
		n++
		return nil
	})
	return n, err
}

// eachEntry calls f with each entry of a directory or table.
func eachEntry(from io.Reader, f func(entry int64) error) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := io.ReadFull(from, buf)
		for entries := buf[:n-n%entrySize]; len(entries) > 0; entries = entries[entrySize:] {
			if err := f(int64(binary.LittleEndian.Uint32(entries))); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading grain tables: %w", err)
		}
	}
}
