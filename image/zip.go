package image

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zip"
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
	files, err := u.zipDirectory(in, size)
	if err != nil {
		return err
	}
	places, err := newZipPlaces(in, size, files)
	if err != nil {
		return u.unreadable(err)
	}
	for i, f := range files {
		name := zipName(&f.FileHeader)
		if isForMac(name) || isVolumeLabel(f) {
			places.skip(i)
			if err := u.count(); err != nil {
				return err
			}
			continue
		}
		body, err := places.open(i)
		if err != nil {
			return u.unreadable(err)
		}
		dir := strings.HasSuffix(name, "/") || f.Mode().IsDir()
		err = u.entry(name, dir, int64(min(f.UncompressedSize64, 1<<62)), body)
		if err == nil && dir { // which has no data, and reading it shows that
			_, err = io.Copy(io.Discard, io.LimitReader(body, 1))
		}
		body.close()
		if err != nil {
			return u.unreadable(err)
		}
	}
	return nil
}

// zipDirectory looks at a zip's directory before anything is opened: it is of a
// bearable size, and has only entries that this package reads.
func (u *unpacker) zipDirectory(in io.ReaderAt, size int64) ([]*zip.File, error) {
	limited := &limitedReaderAt{r: in, left: zipEntryBytes*int64(u.limits.Entries) + 128<<10}
	z, err := zip.NewReader(limited, size)
	if limited.left < 0 {
		return nil, over(ErrTooManyEntries, "zip directory is larger than that of the %d entries that are allowed", u.limits.Entries)
	}
	if err != nil {
		return nil, u.unreadable(err)
	}
	if _, err := zipEndRecord(in, size); err != nil {
		return nil, fail(ErrInvalid, err, "the archive has something behind its end")
	}
	seen := map[string]bool{}
	for _, f := range z.File {
		name := zipName(&f.FileHeader)
		if isForMac(name) || isVolumeLabel(f) {
			continue
		}
		if err := zipEntryAllowed(in, f, name); err != nil {
			return nil, err
		}
		if seen[name] && !strings.HasSuffix(name, "/") {
			return nil, fail(ErrInvalid, nil, "the image has %s twice; pack it again", quoted(name))
		}
		seen[name] = true
	}
	// Reading goes on with the reader that has no limit.
	if z, err = zip.NewReader(in, size); err != nil {
		return nil, u.unreadable(err)
	}
	return z.File, nil
}

// zipEntryAllowed refuses an entry that is no file or folder, or that cannot be
// read here.
func zipEntryAllowed(in io.ReaderAt, f *zip.File, name string) error {
	switch mode := f.Mode(); {
	case mode&fs.ModeSymlink != 0:
		target := make([]byte, 4096)
		at, err := f.DataOffset()
		if err != nil {
			return fail(ErrInvalid, err, "the archive is damaged: %v", err)
		}
		n, _ := in.ReadAt(target[:min(f.CompressedSize64, uint64(len(target)))], at)
		if f.Method != zip.Store {
			return fail(ErrUnsafe, nil, "the image's %s is a link; only files and folders may be in an image", quoted(name))
		}
		return symbolicLink(name, string(target[:n]))
	case mode&fs.ModeDevice != 0:
		return fail(ErrUnsafe, nil, "the image's %s is a device; only files and folders may be in an image", quoted(name))
	case mode&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeIrregular) != 0:
		return fail(ErrInvalid, nil, "the image's %s is a pipe or a socket; pack it again without it", quoted(name))
	case f.Flags&1 != 0:
		return fail(ErrInvalid, nil, "the image's %s is encrypted; pack it again without a password", quoted(name))
	case zipMethods[f.Method] == nil:
		return fail(ErrInvalid, nil, "the image's %s is compressed by zip's method %d (%s), which is not read here; pack the folder with tar -czf, or in 7-Zip with the method Deflate", quoted(name), f.Method, methodName(f.Method))
	}
	return nil
}

// isVolumeLabel reports whether an entry is the label of a disk under DOS.
func isVolumeLabel(f *zip.File) bool {
	const label = 0x08
	host := f.CreatorVersion >> 8
	return (host == 0 || host == 10 || host == 11 || host == 14) && f.ExternalAttrs&label != 0
}

// zipName returns the name of an entry. If an extra field has it in UTF-8
// (APPNOTE.TXT, 4.6.9), that counts. Windows' own programs separate folders by
// backslashes.
func zipName(h *zip.FileHeader) string {
	const unicodePath = 0x7075
	name := h.Name
	for extra := h.Extra; len(extra) >= 4; {
		id, n := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		if n > len(extra)-4 {
			break
		}
		field := extra[4 : 4+n]
		extra = extra[4+n:]
		if id == unicodePath && n > 5 && field[0] == 1 && binary.LittleEndian.Uint32(field[1:]) == crc32.ChecksumIEEE([]byte(h.Name)) && utf8.Valid(field[5:]) {
			name = string(field[5:])
		}
	}
	return strings.ReplaceAll(fromCodePage(name), `\`, "/")
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
