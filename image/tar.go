package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"

	"github.com/mholt/archiver/v3"
)

const tarBlock = 512

// tar reads a tar archive to its end.
func (u *unpacker) tar(in *stream) error {
	t := archiver.NewTar()
	if err := t.Open(in, 0); err != nil {
		return u.unreadable(err)
	}
	defer t.Close()
	for {
		f, err := t.Read()
		if err == io.EOF {
			return u.tarEnd(in)
		}
		if err != nil {
			return u.unreadable(err)
		}
		if err := u.tarEntry(f.Header.(*tar.Header), f); err != nil {
			return err
		}
	}
}

func (u *unpacker) tarEntry(h *tar.Header, body io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil // words about the archive, as git writes them
	case tar.TypeDir:
		return u.entry(h.Name, true, 0, nil)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.entry(h.Name, false, h.Size, body)
	case tar.TypeLink, tar.TypeSymlink:
		return fail(ErrUnsafe, nil, "the image's %s is a link to %s; only files and folders may be in an image", quoted(h.Name), quoted(h.Linkname))
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return fail(ErrUnsafe, nil, "the image's %s is a device or a pipe; only files and folders may be in an image", quoted(h.Name))
	default:
		return fail(ErrInvalid, nil, "the image's %s is of tar type %q; only files and folders may be in an image", quoted(h.Name), h.Typeflag)
	}
}

// tarEnd makes sure that the archive is whole: it has its end mark, and after
// that nothing but zeroes. Reading on also makes the decompressor compare its
// own checksum.
func (u *unpacker) tarEnd(in *stream) error {
	if !in.endsInZeroes() {
		return fail(ErrInvalid, nil, "the archive is cut off: it has no end mark")
	}
	zeroes := make([]byte, len(u.buf))
	for {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		n, err := in.Read(u.buf)
		if !bytes.Equal(u.buf[:n], zeroes[:n]) {
			return fail(ErrInvalid, nil, "the archive has something behind its end")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return u.unreadable(err)
		}
	}
}
