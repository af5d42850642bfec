package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

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
	if isForMac(h.Name) {
		return u.count()
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader, typeVolume:
		return u.count() // words about the archive
	case tar.TypeDir, typeDumpDir:
		return u.entry(h.Name, true, 0, nil)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return u.entry(h.Name, false, h.Size, body)
	case tar.TypeLink:
		return u.hardLink(h.Name, h.Linkname)
	case tar.TypeSymlink:
		return symbolicLink(h.Name, h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		return fail(ErrUnsafe, nil, "the image's %s is a device; only files and folders may be in an image", quoted(h.Name))
	case tar.TypeFifo:
		return fail(ErrInvalid, nil, "the image's %s is a pipe; pack it again without it (tar --exclude)", quoted(h.Name))
	case typeMultiVolume:
		return fail(ErrInvalid, nil, "the archive is a part of one in several volumes; pack the image again in one (tar without --multi-volume)")
	default:
		return fail(ErrInvalid, nil, "the image's %s is of tar type %q; only files and folders may be in an image", quoted(h.Name), h.Typeflag)
	}
}

// The types of entries that only GNU tar writes: a label, a folder of an
// incremental backup, and a file that began in another volume.
const (
	typeVolume      = 'V'
	typeDumpDir     = 'D'
	typeMultiVolume = 'M'
)

// symbolicLink refuses a link. One that leads out of the image is unsafe.
func symbolicLink(name, target string) error {
	to := path.Join(path.Dir(strings.ReplaceAll(name, `\`, "/")), strings.ReplaceAll(target, `\`, "/"))
	if outside(target) == "is absolute" || outside(target) == "begins with a drive" || outside(to) != "" {
		return fail(ErrUnsafe, nil, "the image's %s is a link to %s, which is outside of the image; only files and folders may be in an image", quoted(name), quoted(target))
	}
	return fail(ErrInvalid, nil, "the image's %s is a link to %s; pack the files themselves (tar --dereference, zip without -y)", quoted(name), quoted(target))
}

// hardLink copies a file to which the archive has a second name. A copy keeps the
// two apart, and counts towards the limits.
func (u *unpacker) hardLink(name, target string) error {
	clean, err := cleanName(name, u.limits)
	if err != nil {
		return err
	}
	to, err := cleanName(target, u.limits)
	if err != nil {
		return err
	}
	if clean == to { // tar packs a file that it is given twice like this
		return u.count()
	}
	if !u.names.has(to) {
		return fail(ErrInvalid, nil, "the image's %s is a hard link to %s, which is not before it in the archive; pack the whole folder, with tar --hard-dereference", quoted(name), quoted(target))
	}
	f, err := u.root.Open(to)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", clean, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", clean, err)
	}
	return u.entry(name, false, info.Size(), f)
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
