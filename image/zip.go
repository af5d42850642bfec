package image

import (
	"errors"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zip"
	"github.com/mholt/archiver/v3"
)

// zipEntryBytes bounds what is read of a zip's directory, which is held in
// memory, for each entry that Limits.Entries allows: several times what one
// takes as a rule.
const zipEntryBytes = 400

// zip reads a zip archive, which needs its end first.
func (u *unpacker) zip() error {
	in, size, err := u.archive.whole()
	if err != nil {
		return err
	}
	if err := u.zipCheck(in, size); err != nil {
		return err
	}
	z := archiver.NewZip()
	section := io.NewSectionReader(in, 0, size)
	if err := z.Open(section, size); err != nil {
		return u.unreadable(err)
	}
	defer z.Close()
	for {
		f, err := z.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return u.unreadable(err)
		}
		h := f.Header.(zip.FileHeader)
		err = u.entry(h.Name, f.IsDir(), int64(min(h.UncompressedSize64, 1<<62)), f)
		if err = errors.Join(err, f.Close()); err != nil {
			return u.unreadable(err)
		}
	}
}

// zipCheck looks at a zip's directory before anything is opened: it is of a
// bearable size, and has only entries that this package reads.
func (u *unpacker) zipCheck(in io.ReaderAt, size int64) error {
	limited := &limitedReaderAt{r: in, left: zipEntryBytes*int64(u.limits.Entries) + 128<<10}
	z, err := zip.NewReader(limited, size)
	if limited.left < 0 {
		return over(ErrTooManyEntries, "zip directory is larger than that of the %d entries that are allowed", u.limits.Entries)
	}
	if err != nil {
		return u.unreadable(err)
	}
	if err := u.zipEnd(in, size, len(z.Comment)); err != nil {
		return err
	}
	for _, f := range z.File {
		switch mode := f.Mode(); {
		case mode&fs.ModeSymlink != 0:
			return fail(ErrUnsafe, nil, "the image's %s is a link; only files and folders may be in an image", quoted(f.Name))
		case mode&^fs.ModePerm&^fs.ModeDir&^fs.ModeSetuid&^fs.ModeSetgid&^fs.ModeSticky != 0:
			return fail(ErrUnsafe, nil, "the image's %s is a device or a pipe; only files and folders may be in an image", quoted(f.Name))
		case f.Flags&1 != 0:
			return fail(ErrInvalid, nil, "the image's %s is encrypted", quoted(f.Name))
		case f.Method != zip.Store && f.Method != zip.Deflate:
			return fail(ErrInvalid, nil, "the image's %s is compressed by zip's method %d; only stored (0) and deflated (8) files are read here", quoted(f.Name), f.Method)
		}
	}
	return nil
}

// zipEnd makes sure that nothing follows the directory's end record, which is
// 22 bytes and the archive's comment.
func (u *unpacker) zipEnd(in io.ReaderAt, size int64, comment int) error {
	var end [4]byte
	if _, err := in.ReadAt(end[:], size-22-int64(comment)); err != nil || string(end[:]) != "PK\x05\x06" {
		return fail(ErrInvalid, err, "the archive has something behind its end")
	}
	return nil
}

// limitedReaderAt fails once more than left bytes were read.
type limitedReaderAt struct {
	r    io.ReaderAt
	left int64
}

func (l *limitedReaderAt) ReadAt(b []byte, off int64) (int, error) {
	if l.left -= int64(len(b)); l.left < 0 {
		return 0, errors.New("more was read than is allowed")
	}
	return l.r.ReadAt(b, off)
}
