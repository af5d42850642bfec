package vmx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// grainCounter counts grains in the tables of sparse files.
type grainCounter struct {
	tables int64 // bytes of tables that it read
}

// tableRun is a run of tables that follow each other both in the directory and in the file, and are read at once.
type tableRun struct {
	first int64 // index of the first table in the directory
	at    int64 // byte at which it begins
	bytes int64
}

// allocated returns how many bytes of a disk the grains in a file of size bytes hold. It refuses tables and grains that
// are not within the file, and more of them than fit into it: of a file that lists one grain many times, little would
// become a lot. A compressed grain takes at least a sector.
func (c *grainCounter) allocated(file io.ReaderAt, g grains, size int64) (int64, error) {
	var index, tables, count int64
	var run tableRun
	flush := func() error {
		n, err := countGrains(file, g, run, size)
		count += n
		run = tableRun{}
		return err
	}
	length := g.perTable * g.entrySize
	directory := io.NewSectionReader(file, g.directory, g.entries*g.entrySize)
	err := eachEntry(directory, g.entrySize, func(entry uint64) error {
		index++
		at, err := g.table(entry)
		if at == 0 || err != nil {
			return err
		}
		if at < sectorSize || at > size-length {
			return invalidField("grain table", entry, fmt.Sprintf("the table is not within the file, which has %d bytes; the file is truncated or damaged", size))
		}
		if tables++; tables*length > size {
			return invalidField("grain directory", uint64(tables), fmt.Sprintf("the directory lists more tables than fit into the file, which has %d bytes", size)) // #nosec G115
		}
		if c.tables += length; c.tables > maxTables {
			return &CheckError{Reason: fmt.Sprintf("the image's disks have more than %d bytes of grain tables; make them smaller, or their grains larger", int64(maxTables))}
		}
		if run.bytes > 0 && (at != run.at+run.bytes || (index-1-run.first)*length != run.bytes) {
			if err := flush(); err != nil {
				return err
			}
		}
		if run.bytes == 0 {
			run.first, run.at = index-1, at
		}
		run.bytes += length
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
		return 0, invalidField("grain tables", uint64(count), fmt.Sprintf("the tables list more grains than fit into the file, which has %d bytes", size)) // #nosec G115
	}
	return count * g.size, nil
}

// countGrains returns how many grains the tables in a run list.
func countGrains(file io.ReaderAt, g grains, run tableRun, size int64) (n int64, err error) {
	index := run.first * g.perTable
	tables := io.NewSectionReader(file, run.at, run.bytes)
	err = eachEntry(tables, g.entrySize, func(entry uint64) error {
		first := index * g.size // byte of the disk
		index++
		at, err := g.grain(entry)
		if at == 0 || err != nil {
			return err
		}
		n++
		if at < sectorSize || at >= size {
			return invalidField("grain", entry, fmt.Sprintf("the grain begins beyond the end of the file, which has %d bytes; the file is truncated or damaged", size))
		}
		if g.compressed {
			return checkMarker(file, at, first, size)
		}
		// Some programs write of the last grain only what belongs to the disk.
		if need := min(g.size, max(0, g.capacity-first)); at > size-need {
			return invalidField("grain", entry, fmt.Sprintf("the grain ends beyond the end of the file, which has %d bytes; the file is truncated", size))
		}
		return nil
	})
	return n, err
}

// checkMarker checks what precedes a compressed grain: the sector of the disk at 0, and the bytes of the data at 8.
func checkMarker(file io.ReaderAt, at, first, size int64) error {
	const length = 12
	var marker [length]byte
	if n, err := file.ReadAt(marker[:], at); n < length && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the marker of a grain: %w", err)
	}
	sector, data := binary.LittleEndian.Uint64(marker[:]), int64(binary.LittleEndian.Uint32(marker[8:]))
	if sector != uint64(first/sectorSize) || data == 0 { // #nosec G115
		return invalidField("grain", uint64(at/sectorSize), fmt.Sprintf("the file has at this sector not the marker of the compressed grain of sector %d of the disk; the file is damaged", first/sectorSize)) // #nosec G115
	}
	if at+length+data > size {
		return invalidField("grain", uint64(at/sectorSize), fmt.Sprintf("the compressed grain ends beyond the end of the file, which has %d bytes; the file is truncated", size)) // #nosec G115
	}
	return nil
}

// eachEntry calls f with each entry of a directory or table, which has 4 or 8 bytes.
func eachEntry(from io.Reader, size int64, f func(entry uint64) error) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := io.ReadFull(from, buf)
		for rest := buf[:n]; int64(len(rest)) >= size; rest = rest[size:] {
			entry := uint64(binary.LittleEndian.Uint32(rest))
			if size == seSparseEntrySize {
				entry = binary.LittleEndian.Uint64(rest)
			}
			if err := f(entry); err != nil {
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
