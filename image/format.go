package image

import (
	"bufio"
	"bytes"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// form is an archive's outer format.
type form int

const (
	formUnknown form = iota
	formTar
	formGzip
	formBzip2
	formXz
	formZstd
	formZip
)

// windowBytes bounds the memory of the decompressors whose archives say how
// much they want. It is what xz and zstd themselves use at most without further
// options: xz -9 wants 64 MiB, zstd --long 128 MiB.
const windowBytes = 128 << 20

// sniff returns the format of an archive by its first bytes; 512 are enough. What the
// URL is called does not matter.
func sniff(head []byte) form {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return formGzip
	case bytes.HasPrefix(head, []byte("BZh")):
		return formBzip2
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return formXz
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")), isSkippable(head):
		return formZstd
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return formZip
	case len(head) >= tarBlock && (bytes.Equal(head[257:262], []byte("ustar")) || hasTarChecksum(head)):
		return formTar
	default:
		return formUnknown
	}
}

// isSkippable reports whether a zstd archive begins with a frame that decompressors
// skip (RFC 8878, 3.1.2). pzstd puts one before each frame of data.
func isSkippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18"))
}

// hasTarChecksum recognizes the header of an archive from before POSIX, which has
// no magic: bytes 148 to 155 hold, in octal, the sum of all bytes of the block
// with these eight taken for blanks.
func hasTarChecksum(block []byte) bool {
	field := bytes.Trim(block[148:156], " \x00")
	want, err := strconv.ParseInt(string(field), 8, 64)
	if err != nil {
		return false
	}
	sum := int64(8 * ' ')
	for i, b := range block[:tarBlock] {
		if i < 148 || i >= 156 {
			sum += int64(b)
		}
	}
	return sum == want
}

// decompress returns a reader of the tar archive inside in, and what frees it.
// The memory that it takes does not grow with the archive.
func decompress(f form, in *bufio.Reader) (io.Reader, func(), error) {
	none := func() {}
	switch f {
	case formGzip:
		z, err := newGzipReader(in)
		if err != nil {
			return nil, nil, err
		}
		return z, z.close, nil
	case formBzip2:
		b := newBzip2Reader(bufio.NewReader(&bzipPadding{in: in}))
		return b, b.close, nil
	case formXz:
		x, err := xz.NewReader(in, windowBytes)
		return x, none, err
	case formZstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(windowBytes), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	default:
		return in, none, nil
	}
}
