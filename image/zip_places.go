package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/klauspost/compress/zip"
)

// zipPlaces knows where the data of a zip's entries is.
//
// The Finder and ditto of macOS write archives over 4 GiB without the fields of
// zip64: sizes and offsets are there modulo 4 GiB. Such entries follow each other in
// the order of the directory, each deflated entry shows itself where it ends, and
// its CRC whether it is whole. Info-ZIP's unzip and macOS read them, too.
type zipPlaces struct {
	in      io.ReaderAt
	size    int64
	files   []*zip.File
	wrapped []uint32 // offsets of the entries' headers modulo 4 GiB, or nil if those of the directory are right
	next    int64    // end of the entry before, if wrapped
}

// The records of a zip archive, without their names and other parts of any length.
const (
	zipHeaderBytes    = 30
	zipDirectoryBytes = 46
	zipEndBytes       = 22
)

// newZipPlaces returns the places of the entries, which are all of the directory's.
func newZipPlaces(in io.ReaderAt, size int64, files []*zip.File) (*zipPlaces, error) {
	p := &zipPlaces{in: in, size: size, files: files}
	if size <= math.MaxUint32 || len(files) == 0 {
		return p, nil
	}
	end, err := zipEndRecord(in, size)
	if err != nil || end.zip64 {
		return p, err
	}
	directory := io.NewSectionReader(in, end.at-int64(end.directoryBytes), int64(end.directoryBytes))
	buf := bufio.NewReader(directory)
	for range files {
		var record [zipDirectoryBytes]byte
		if _, err := io.ReadFull(buf, record[:]); err != nil {
			return nil, err
		}
		length := func(at int) int { return int(binary.LittleEndian.Uint16(record[at:])) }
		p.wrapped = append(p.wrapped, binary.LittleEndian.Uint32(record[42:]))
		if _, err := buf.Discard(length(28) + length(30) + length(32)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// zipEnd is what that record says.
type zipEnd struct {
	at             int64 // byte of the archive
	directoryBytes uint32
	zip64          bool // the fields of zip64 count
}

// zipEndRecord reads the record at the end of an archive, which ends with it and its
// comment.
func zipEndRecord(in io.ReaderAt, size int64) (zipEnd, error) {
	tail := make([]byte, min(size, zipEndBytes+math.MaxUint16))
	if _, err := in.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return zipEnd{}, err
	}
	for i := len(tail) - zipEndBytes; i >= 0; i-- {
		if string(tail[i:i+4]) != "PK\x05\x06" || i+zipEndBytes+int(binary.LittleEndian.Uint16(tail[i+20:])) != len(tail) {
			continue
		}
		e := zipEnd{at: size - int64(len(tail)-i), directoryBytes: binary.LittleEndian.Uint32(tail[i+12:])}
		var locator [4]byte
		if e.at >= 20 {
			if _, err := in.ReadAt(locator[:], e.at-20); err != nil {
				return zipEnd{}, err
			}
		}
		e.zip64 = string(locator[:]) == "PK\x06\x07"
		return e, nil
	}
	return zipEnd{}, zip.ErrFormat
}

// skip passes an entry. One that is not read has less than 4 GiB.
func (p *zipPlaces) skip(i int) {
	if p.wrapped == nil {
		return
	}
	if at, err := p.data(i); err == nil {
		p.next = at + int64(p.files[i].CompressedSize64) // #nosec G115
	}
}

// open returns the data of an entry.
func (p *zipPlaces) open(i int) (*zipBody, error) {
	f := p.files[i]
	if p.wrapped == nil {
		at, err := f.DataOffset()
		if err != nil {
			return nil, err
		}
		return newZipBody(io.NewSectionReader(p.in, at, int64(min(f.CompressedSize64, math.MaxInt64))), f, nil) // #nosec G115
	}
	at, err := p.data(i)
	if err != nil {
		return nil, err
	}
	length := p.size - at
	if f.Method != zip.Deflate {
		length = min(length, int64(f.CompressedSize64)) // #nosec G115
	}
	return newZipBody(io.NewSectionReader(p.in, at, length), f, func(n int64) { p.next = at + n })
}

// data returns where the data of an entry begins whose offset is only known modulo
// 4 GiB.
func (p *zipPlaces) data(i int) (int64, error) {
	at := int64(p.wrapped[i])
	if at < p.next {
		at += (p.next - at + math.MaxUint32) / (math.MaxUint32 + 1) * (math.MaxUint32 + 1)
	}
	var header [zipHeaderBytes]byte
	if _, err := p.in.ReadAt(header[:], at); err != nil {
		return 0, err
	}
	name := make([]byte, binary.LittleEndian.Uint16(header[26:]))
	if _, err := p.in.ReadAt(name, at+zipHeaderBytes); err != nil {
		return 0, err
	}
	if string(header[:4]) != "PK\x03\x04" || string(name) != p.files[i].Name {
		return 0, zip.ErrFormat
	}
	return at + zipHeaderBytes + int64(len(name)) + int64(binary.LittleEndian.Uint16(header[28:])), nil
}
