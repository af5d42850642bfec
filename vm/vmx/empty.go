package vmx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// EmptyDisk returns the contents of a sparse VMDK file of so many bytes, rounded up to a sector, that has no data. Its
// size must be between 1 and 64 TiB.
func EmptyDisk(size int64) io.Reader {
	const grain, descriptorSectors = 128, 20
	sectors := (size + sectorSize - 1) / sectorSize
	entries := (sectors + grain*tableEntries - 1) / (grain * tableEntries)
	directory := (entries*entrySize + sectorSize - 1) / sectorSize * sectorSize
	head := make([]byte, sectorSize+descriptorSectors*sectorSize)
	copy(head, "KDMV")
	le := binary.LittleEndian
	le.PutUint32(head[4:], 1)
	le.PutUint32(head[8:], flagNewlines)
	le.PutUint64(head[12:], uint64(sectors)) // #nosec G115
	le.PutUint64(head[20:], grain)
	le.PutUint64(head[28:], 1)
	le.PutUint64(head[36:], descriptorSectors)
	le.PutUint32(head[44:], tableEntries)
	le.PutUint64(head[56:], 1+descriptorSectors)
	le.PutUint64(head[64:], uint64(1+descriptorSectors+directory/sectorSize)) // #nosec G115
	copy(head[73:], newlines)
	copy(head[sectorSize:], fmt.Sprintf(strings.Join([]string{
		"# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff", `createType="monolithicSparse"`, "",
		`RW %d SPARSE "empty.vmdk"`, "", `ddb.virtualHWVersion = "13"`, `ddb.adapterType = "lsilogic"`,
		`ddb.geometry.cylinders = "%d"`, `ddb.geometry.heads = "255"`, `ddb.geometry.sectors = "63"`, "",
	}, "\n"), sectors, min(sectors/(255*63), 65535)))
	return io.MultiReader(bytes.NewReader(head), io.LimitReader(zeroes{}, directory))
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
