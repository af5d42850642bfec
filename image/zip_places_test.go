package image

import (
	"encoding/binary"
	"io"
	"testing"

	"github.com/klauspost/compress/zip"
)

// holes is an archive of zeroes with some pieces in it.
type holes struct {
	size   int64
	pieces map[int64][]byte
}

func (h holes) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	for offset, piece := range h.pieces {
		for i, c := range piece {
			if j := offset + int64(i) - at; j >= 0 && j < int64(len(b)) {
				b[j] = c
			}
		}
	}
	if at+int64(len(b)) > h.size {
		return int(max(0, h.size-at)), io.EOF
	}
	return len(b), nil
}

// The offsets of an archive over 4 GiB without zip64 are those behind the entry before.
func TestZipPlacesOver4GiB(t *testing.T) {
	le := binary.LittleEndian
	starts := []int64{0, 5 << 30, 5<<30 + 1000, 14 << 30}
	names := []string{"a.vmx", "b", "c", "d"}
	h := holes{pieces: map[int64][]byte{}}
	var directory []byte
	var files []*zip.File
	for i, name := range names {
		header := make([]byte, zipHeaderBytes)
		copy(header, "PK\x03\x04")
		le.PutUint16(header[26:], uint16(len(name)))
		h.pieces[starts[i]] = append(header, name...)
		record := make([]byte, zipDirectoryBytes)
		copy(record, "PK\x01\x02")
		le.PutUint16(record[28:], uint16(len(name)))
		le.PutUint32(record[42:], uint32(starts[i]))
		directory = append(append(directory, record...), name...)
		files = append(files, &zip.File{FileHeader: zip.FileHeader{Name: name, Method: zip.Deflate}})
	}
	end := make([]byte, zipEndBytes)
	copy(end, "PK\x05\x06")
	le.PutUint32(end[12:], uint32(len(directory)))
	h.size = 20<<30 + int64(len(directory)+len(end))
	h.pieces[20<<30] = append(directory, end...)

	p, err := newZipPlaces(h, h.size, files)
	if err != nil || p.wrapped == nil {
		t.Fatalf("got %v and offsets %v, want that they are modulo 4 GiB", err, p.wrapped)
	}
	ends := []int64{4<<30 + 7, 5<<30 + 900, 13 << 30}
	for i := range files {
		at, err := p.data(i)
		if want := starts[i] + zipHeaderBytes + int64(len(names[i])); err != nil || at != want {
			t.Errorf("%s: got %d, %v, want %d", names[i], at, err, want)
		}
		if i < len(ends) {
			p.next = ends[i]
		}
	}
	p.next = 15 << 30
	if at, err := p.data(3); err == nil {
		t.Errorf("an entry that is not behind the one before: got %d", at)
	}
}
