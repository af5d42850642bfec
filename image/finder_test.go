package image_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/klauspost/compress/flate"
)

// finderZip returns an archive of a .vmx file and a file of size zeroes, which has 4 GiB or more, without the fields of
// zip64, as the Finder of macOS writes it.
func finderZip(t testing.TB, size int64) []byte {
	t.Helper()
	const unit = 4 << 20
	var one bytes.Buffer
	w, err := flate.NewWriter(&one, flate.BestSpeed)
	must(t, err)
	_, err = w.Write(make([]byte, unit))
	must(t, err)
	must(t, w.Flush())
	var last bytes.Buffer
	w, err = flate.NewWriter(&last, flate.BestSpeed)
	must(t, err)
	_, err = w.Write(make([]byte, size%unit))
	must(t, err)
	must(t, w.Close())
	packed := append(bytes.Repeat(one.Bytes(), int(size/unit)), last.Bytes()...)

	sum := crc32.NewIEEE()
	zeroes := make([]byte, unit)
	for left := size; left > 0; left -= unit {
		_, _ = sum.Write(zeroes[:min(left, unit)])
	}
	config := vmx("").body
	return finderArchive([]finderFile{
		{"mac.vmx", config, crc32.ChecksumIEEE(config), int64(len(config)), 0},
		{"disk", packed, sum.Sum32(), size, 8},
	})
}

// finderFile is an entry of finderArchive.
type finderFile struct {
	name   string
	packed []byte
	crc    uint32
	size   int64
	method uint16
}

// finderArchive writes an archive whose local headers have no sizes, and whose directory has them modulo 4 GiB.
func finderArchive(files []finderFile) []byte {
	var b, directory []byte
	le := binary.LittleEndian
	for _, f := range files {
		at := uint32(len(b))
		const version, descriptor = 20, 8
		fields := func(b []byte, sizes bool) []byte {
			b = le.AppendUint16(b, version)
			b = le.AppendUint16(b, descriptor)
			b = le.AppendUint16(b, f.method)
			b = le.AppendUint32(b, 0x21<<16) // time
			if sizes {
				b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, f.crc), uint32(len(f.packed))), uint32(f.size))
			} else {
				b = append(b, make([]byte, 12)...)
			}
			b = le.AppendUint16(b, uint16(len(f.name)))
			return le.AppendUint16(b, 0)
		}
		b = append(fields(append(b, "PK\x03\x04"...), false), f.name...)
		b = append(append(b, f.packed...), "PK\x07\x08"...)
		b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, f.crc), uint32(len(f.packed))), uint32(f.size))
		directory = le.AppendUint16(append(directory, "PK\x01\x02"...), 3<<8|version)
		directory = fields(directory, true)
		directory = append(directory, make([]byte, 10)...)
		directory = append(le.AppendUint32(directory, at), f.name...)
	}
	at := uint32(len(b))
	b = append(append(b, directory...), "PK\x05\x06\x00\x00\x00\x00"...)
	n := uint16(len(files))
	b = le.AppendUint16(le.AppendUint16(b, n), n)
	b = le.AppendUint32(le.AppendUint32(b, uint32(len(directory))), at)
	return le.AppendUint16(b, 0)
}
