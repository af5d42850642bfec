package vmx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// format is the format of a disk file according to its first bytes.
type format int

const (
	formatRaw format = iota
	formatText
	formatSparse
	formatCOWD
	formatSESparse
	formatQCOW
	formatVDI
	formatVHDX
	formatVHD
	formatQED
	formatLUKS
	formatParallels
)

// isForeign reports whether the format is that of another program.
func (k format) isForeign() bool { return k >= formatQCOW }

func (k format) String() string {
	switch k {
	case formatQCOW:
		return "a QCOW image"
	case formatVDI:
		return "a VDI image"
	case formatVHDX:
		return "a VHDX image"
	case formatVHD:
		return "a VHD image"
	case formatQED:
		return "a QED image"
	case formatLUKS:
		return "a LUKS volume"
	case formatParallels:
		return "a Parallels image"
	case formatText:
		return "a descriptor"
	case formatSparse:
		return "a sparse extent"
	case formatCOWD, formatSESparse:
		return "an extent of an ESX disk"
	default:
		return "a raw image or no image"
	}
}

// magics identify the formats. All programs begin a text descriptor with this comment.
var magics = []struct {
	offset int
	magic  string
	format format
}{
	{0, "# Disk DescriptorFile", formatText},
	{0, "KDMV", formatSparse},
	{0, "COWD", formatCOWD},
	{0, "\xbe\xba\xfe\xca\x00\x00\x00\x00", formatSESparse},
	{0, "QFI\xfb", formatQCOW},
	{64, "\x7f\x10\xda\xbe", formatVDI},
	{0, "vhdxfile", formatVHDX},
	{0, "conectix", formatVHD},
	{0, "QED\x00", formatQED},
	{0, "LUKS\xba\xbe", formatLUKS},
	{0, "WithoutFreeSpace", formatParallels},
	{0, "WithouFreSpacExt", formatParallels},
}

func formatOf(head []byte) format {
	for _, m := range magics {
		if len(head) >= m.offset && bytes.HasPrefix(head[m.offset:], []byte(m.magic)) {
			return m.format
		}
	}
	return formatRaw
}

// sparseHeader holds the needed fields of the header of a hosted sparse extent.
type sparseHeader struct {
	capacity       int64 // sectors
	descriptor     int64 // its first sector, or 0 if there is none
	descriptorSize int64 // sectors
	grains         grains
}

// inFooter is an offset of the grain directory that means that the valid copy of the header is in a footer, the last
// but one sector of the file.
const inFooter = ^uint64(0)

// readSparseHeader reads the header that begins with KDMV. Numbers are little-endian: the version at 4, the capacity at
// 12, the descriptor's offset and size at 28 and 36, the grain directory's offset at 56. Offsets are in sectors.
func readSparseHeader(file *os.File, head []byte, size int64) (sparseHeader, error) {
	if len(head) < sectorSize {
		return sparseHeader{}, &CheckError{Reason: "the file is truncated in its header"}
	}
	number := func(b []byte, offset int) uint64 { return binary.LittleEndian.Uint64(b[offset:]) }
	offset, length := number(head, 28), number(head, 36)
	if number(head, 12) == 0 {
		// QEMU reads such a file as a text descriptor and opens its extents.
		return sparseHeader{}, &CheckError{Hostile: true, Key: "capacity", Value: "0", Reason: "hypervisors open other files if the capacity of a sparse file is 0"}
	}
	if number(head, 56) == inFooter {
		// QEMU and VMware search the footer of a file that does not end with a sector in different places.
		if size%sectorSize != 0 {
			return sparseHeader{}, &CheckError{Reason: fmt.Sprintf("the file has %d bytes, which is no multiple of 512; it is truncated", size)}
		}
		footer, err := readFooter(file, size)
		if err != nil {
			return sparseHeader{}, err
		}
		head = footer
	}
	capacity, version := number(head, 12), binary.LittleEndian.Uint32(head[4:])
	switch {
	case version < 1 || version > 3:
		return sparseHeader{}, &CheckError{Reason: "the version of the file is not 1, 2 or 3"}
	case capacity == 0 || capacity > uint64(maxSectors):
		return sparseHeader{}, &CheckError{Reason: "the disk's capacity is 0 or more than 64 TiB"}
	case offset > uint64(maxSectors) || length > maxDescriptor/sectorSize:
		return sparseHeader{}, &CheckError{Reason: "the descriptor's offset or size exceeds the limits (1 MiB)"}
	}
	g, err := readGrains(head, int64(capacity), size)
	if err != nil {
		return sparseHeader{}, err
	}
	return sparseHeader{capacity: int64(capacity), descriptor: int64(offset), descriptorSize: int64(length), grains: g}, nil
}

// markerFooter is the type of the marker before a footer.
const markerFooter = 3

// readFooter reads the copy of the header at the end of a streamOptimized file: a marker of the footer, the footer, and
// the mark of the stream's end, of one sector each. A marker has the bytes of its data at 8 and its type at 12.
func readFooter(file *os.File, size int64) ([]byte, error) {
	end, err := readAt(file, max(0, size-3*sectorSize), 3*sectorSize)
	if err != nil {
		return nil, err
	}
	number := func(offset int) uint32 { return binary.LittleEndian.Uint32(end[offset:]) }
	if len(end) < 3*sectorSize || formatOf(end[sectorSize:]) != formatSparse ||
		number(8) != 0 || number(12) != markerFooter || !bytes.Equal(end[2*sectorSize:2*sectorSize+16], make([]byte, 16)) {
		return nil, &CheckError{Reason: "the file does not end with the footer that its header announces; it is truncated"}
	}
	return end[sectorSize : 2*sectorSize], nil
}
