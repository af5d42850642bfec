package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"strconv"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zip"
	"github.com/ulikunitz/xz/lzma"
	"github.com/xi2/xz"
)

// zipMethod decompresses the data of the entry f.
type zipMethod func(in *bufio.Reader, f *zip.File) (r io.Reader, release func(), err error)

// zipMethods are the methods of compression that are read in a zip archive. The
// memory of each is bounded.
var zipMethods = map[uint16]zipMethod{
	zip.Store: func(in *bufio.Reader, _ *zip.File) (io.Reader, func(), error) { return in, func() {}, nil },
	zip.Deflate: func(in *bufio.Reader, _ *zip.File) (io.Reader, func(), error) {
		return flate.NewReader(in), func() {}, nil
	},
	12: func(in *bufio.Reader, _ *zip.File) (io.Reader, func(), error) {
		return bzip2.NewReader(in), func() {}, nil
	},
	14: zipLZMA,
	93: func(in *bufio.Reader, _ *zip.File) (io.Reader, func(), error) { return decompress(formZstd, in) },
	95: func(in *bufio.Reader, _ *zip.File) (io.Reader, func(), error) {
		x, err := xz.NewReader(in, windowBytes)
		return x, func() {}, err
	},
}

// zipLZMA reads LZMA, whose header in a zip differs from that of a file (APPNOTE.TXT, 5.8.8): behind the version and the
// length of the properties it has those, and the directory has the size unless a mark shows the end.
func zipLZMA(in *bufio.Reader, f *zip.File) (io.Reader, func(), error) {
	const properties, endMark = 5, 1 << 1
	var head [4 + properties]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, nil, err
	}
	if n := binary.LittleEndian.Uint16(head[2:]); n != properties {
		return nil, nil, fmt.Errorf("its LZMA has properties of %d bytes", n)
	}
	size := f.UncompressedSize64
	if f.Flags&endMark != 0 {
		size = math.MaxUint64 // not known
	}
	header := binary.LittleEndian.AppendUint64(head[4:], size)
	r, err := lzma.ReaderConfig{DictCap: windowBytes}.NewReader(io.MultiReader(bytes.NewReader(header), in))
	return r, func() {}, err
}

// methodName returns the name of a method that is not read (APPNOTE.TXT, 4.4.5).
func methodName(method uint16) string {
	switch method {
	case 9:
		return "Deflate64, which Windows Explorer uses for large files"
	case 98:
		return "PPMd"
	case 99:
		return "encrypted"
	}
	return strconv.Itoa(int(method))
}

// zipBody reads the data of an entry and compares its size and its CRC at the end.
type zipBody struct {
	file   *zip.File
	packed *counter
	buf    *bufio.Reader
	r      io.Reader
	close  func()
	ended  func(packed int64) // if not nil, is called at the end with the bytes that were read of the archive

	n   int64
	crc hash.Hash32
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func newZipBody(packed io.Reader, f *zip.File, ended func(int64)) (*zipBody, error) {
	b := &zipBody{file: f, packed: &counter{r: packed}, ended: ended, crc: crc32.NewIEEE()}
	b.buf = bufio.NewReaderSize(b.packed, 64<<10)
	var err error
	b.r, b.close, err = zipMethods[f.Method](b.buf, f)
	return b, err
}

func (b *zipBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	_, _ = b.crc.Write(p[:n])
	if err == io.EOF {
		err = b.end()
	}
	return n, err
}

// end returns io.EOF if all of the entry was read. Without zip64, the size is known
// modulo 4 GiB, and the CRC must match.
func (b *zipBody) end() error {
	if b.ended != nil {
		b.ended(b.packed.n - int64(b.buf.Buffered()))
	}
	want, sum := b.file.UncompressedSize64, b.crc.Sum32()
	switch {
	case uint64(b.n) != want && (want > math.MaxUint32 || uint32(b.n) != uint32(want)): // #nosec G115
		return io.ErrUnexpectedEOF
	case sum != b.file.CRC32:
		return zip.ErrChecksum
	}
	return io.EOF
}
