package cloudinit

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"
	"unicode/utf16"

	"osx-builder/vm"
)

// Where the parts of the disk are, in sectors. The first 16 are the system area.
const (
	sector = 2048 // bytes

	primaryAt    = 16
	jolietAt     = 17
	terminatorAt = 18
	tablesAt     = 19 // path tables: primary in both byte orders, Joliet in both
	rootAt       = 23
	jolietRootAt = 24
	filesAt      = 25
)

// volume is the label by which guests find the disk.
const volume = "cidata"

// file is a file of the disk.
type file struct {
	name string // as guests with Joliet see it; others see it in upper case and convert it back
	data []byte
	at   int // its first sector
}

// NoCloud returns the disk with the machine's [vm.Machine.Guest], which is not nil: an ISO 9660 image with Joliet names
// and the label cidata. Every field has a fixed place, because there are two files in one folder (ECMA-119).
func NoCloud(m vm.Machine) []byte {
	files := []file{
		{name: "meta-data", data: metadata(m, "public-keys", m.Guest.SSHAuthorizedKeys)},
		{name: "user-data", data: []byte(m.Guest.UserData)},
	}
	end := filesAt
	for i := range files {
		files[i].at = end
		end += max(1, (len(files[i].data)+sector-1)/sector)
	}
	image := make([]byte, end*sector)
	at := func(n int) []byte { return image[n*sector:] }
	copy(at(primaryAt), descriptor(1, end, tablesAt, rootAt, plainText))
	copy(at(jolietAt), descriptor(2, end, tablesAt+2, jolietRootAt, jolietText))
	copy(at(terminatorAt), "\xffCD001\x01")
	for i, root := range []int{rootAt, jolietRootAt} {
		copy(at(tablesAt+2*i), pathTable(binary.LittleEndian, root))
		copy(at(tablesAt+2*i+1), pathTable(binary.BigEndian, root))
	}
	copy(at(rootAt), folder(rootAt, files, plainText))
	copy(at(jolietRootAt), folder(jolietRootAt, files, jolietText))
	for _, f := range files {
		copy(at(f.at), f.data)
	}
	return image
}

// encoding writes a name of a file or of the volume.
type encoding func(text string) []byte

func plainText(text string) []byte { return []byte(text) }

// jolietText is UCS-2, which for these names is UTF-16.
func jolietText(text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.BigEndian.AppendUint16(b, unit)
	}
	return b
}

// pathTableBytes is the length of a table with one folder.
const pathTableBytes = 10

func pathTable(order binary.AppendByteOrder, root int) []byte {
	b := []byte{1, 0}                             // length of the name, extended attributes
	b = order.AppendUint32(b, uint32(root))       // #nosec G115
	return append(order.AppendUint16(b, 1), 0, 0) // the parent; the name, padded
}

// descriptor returns the volume descriptor of a type: 1 for the primary one, 2 for Joliet's.
func descriptor(kind byte, sectors, tables, root int, encode encoding) []byte {
	b := make([]byte, sector)
	put := func(at int, data []byte) { copy(b[at:], data) }
	blanks := encode(strings.Repeat(" ", 2*64))
	put(0, append([]byte{kind}, "CD001\x01"...))
	put(8, blanks[:32])  // system
	put(40, blanks[:32]) // volume
	put(40, encode(volume))
	put(80, both32(sectors))
	if kind == 2 {
		put(88, []byte("%/E")) // Joliet, level 3
	}
	put(120, both16(1)) // one disk,
	put(124, both16(1)) // the first one
	put(128, both16(sector))
	put(132, both32(pathTableBytes))
	put(140, binary.LittleEndian.AppendUint32(nil, uint32(tables))) // #nosec G115
	put(148, binary.BigEndian.AppendUint32(nil, uint32(tables+1)))  // #nosec G115
	put(156, entry("\x00", root, sector, true, plainText))
	for at := 190; at < 813; at += 64 { // names of the publisher and the like
		put(at, blanks[:min(64, 813-at)])
	}
	for at := 813; at < 881; at += 17 { // no dates
		put(at, append([]byte(strings.Repeat("0", 16)), 0))
	}
	b[881] = 1 // version of the structure
	return b
}

// folder returns the root folder.
func folder(at int, files []file, encode encoding) []byte {
	b := entry("\x00", at, sector, true, plainText)              // itself
	b = append(b, entry("\x01", at, sector, true, plainText)...) // its parent
	for _, f := range files {
		name := f.name + ";1"
		if kind := encode("a"); len(kind) == 1 {
			name = strings.ToUpper(f.name) + ".;1"
		}
		b = append(b, entry(name, f.at, len(f.data), false, encode)...)
	}
	return b
}

// entry returns the entry of a file in its folder.
func entry(name string, at, size int, isFolder bool, encode encoding) []byte {
	id := encode(name)
	var b bytes.Buffer
	length := 33 + len(id) + 1 - len(id)%2
	b.Write([]byte{byte(length), 0}) // #nosec G115
	b.Write(both32(at))
	b.Write(both32(size))
	now := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)                                       // the same for every disk
	b.Write([]byte{byte(now.Year() - 1900), byte(now.Month()), byte(now.Day()), 0, 0, 0, 0}) // #nosec G115
	flags := byte(0)
	if isFolder {
		flags = 2
	}
	b.Write([]byte{flags, 0, 0})
	b.Write(both16(1))
	b.WriteByte(byte(len(id))) // #nosec G115
	b.Write(id)
	b.Write(make([]byte, length-b.Len()))
	return b.Bytes()
}

// both32 writes a number in both byte orders.
func both32(n int) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(n)), uint32(n)) // #nosec G115
}

func both16(n int) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, uint16(n)), uint16(n)) // #nosec G115
}
