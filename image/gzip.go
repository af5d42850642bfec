package image

import (
	"bufio"
	"bytes"
	"io"

	"github.com/klauspost/pgzip"
)

// gzipReader decompresses gzip: one member or several that follow each other, and
// zeroes after the last one, with which tapes and some programs fill a block.
type gzipReader struct {
	in *bufio.Reader
	z  *pgzip.Reader
}

func newGzipReader(in *bufio.Reader) (*gzipReader, error) {
	z, err := pgzip.NewReaderN(in, 512<<10, 8)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &gzipReader{in: in, z: z}, nil
}

func (g *gzipReader) close() { _ = g.z.Close() }

func (g *gzipReader) Read(b []byte) (int, error) {
	for {
		n, err := g.z.Read(b)
		if err != io.EOF {
			return n, err
		}
		if err = g.next(); err != nil || n > 0 {
			return n, err
		}
	}
}

// next goes on to the next member. io.EOF means that there is none.
func (g *gzipReader) next() error {
	switch head, err := g.in.Peek(1); {
	case err != nil:
		return err
	case head[0] == 0:
		return skipZeroes(g.in)
	}
	if err := g.z.Reset(g.in); err != nil {
		return err
	}
	g.z.Multistream(false)
	return nil
}

// skipZeroes returns io.EOF if nothing but zeroes is left.
func skipZeroes(in *bufio.Reader) error {
	for {
		if _, err := in.Peek(1); err != nil {
			return err
		}
		b, _ := in.Peek(in.Buffered())
		if len(bytes.Trim(b, "\x00")) > 0 {
			return fail(ErrInvalid, nil, "the archive has something behind its end")
		}
		_, _ = in.Discard(len(b))
	}
}
