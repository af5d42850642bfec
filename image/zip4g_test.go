// With the race detector, unpacking 4 GiB twice takes minutes.
//go:build !race

package image_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"osx-builder/image"
)

// A file may be as large as its archive says, however small the fields of the archive are.
func TestZipWithoutZip64(t *testing.T) {
	const size = 4<<30 + 5
	b := finderZip(t, size)
	g := ensure(t, b, limits(func(l *image.Limits) { l.UnpackedBytes, l.Ratio = 8<<30, 1<<20 }))
	info, err := os.Stat(filepath.Join(g.Dir, "disk"))
	must(t, err)
	if info.Size() != size {
		t.Errorf("got %d bytes, want %d", info.Size(), int64(size))
	}
	crc := bytes.LastIndex(b, []byte("PK\x01\x02"))
	b[crc+16]++
	c, dir := open(t, limits(func(l *image.Limits) { l.UnpackedBytes, l.Ratio = 8<<30, 1<<20 }))
	url, _ := serve(t, b)
	if _, err := c.Ensure(t.Context(), image.Source{URL: url, Sum: sumOf(t, b)}, nil); !isInvalid(err) {
		t.Errorf("with a wrong CRC: got %v, want %v", err, image.ErrInvalid)
	}
	wantEmpty(t, dir)
}
