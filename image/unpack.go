package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
	"github.com/xi2/xz"
)

// tree is what an archive held.
type tree struct {
	vmx   string   // slash-separated path of the .vmx file, or before Options.Prepare of an .ovf file
	files []string // slash-separated paths of all files
	bytes int64    // of all files, holes included
}

// unpacker writes an archive's files into a folder.
type unpacker struct {
	ctx    context.Context
	root   *os.Root
	limits Limits
	budget spaceBudget
	names  names
	buf    []byte

	archive *follower
	stream  *stream // decompressed tar, nil for zip
	tree    tree
	entries int
	written int64 // bytes of tree.bytes that are no holes
}

func newUnpacker(ctx context.Context, root *os.Root, l Limits, checkSpace func(int64) error) *unpacker {
	return &unpacker{
		ctx: ctx, root: root, limits: l, budget: spaceBudget{check: checkSpace},
		names: names{seen: map[string]spelling{}}, buf: make([]byte, 1<<20),
	}
}

// unpack reads an archive of any known format and writes its files. Whatever
// the archive does, nothing outside the root changes. It has read to the
// archive's very end when it returns nil.
func (u *unpacker) unpack(archive *follower) error {
	u.archive = archive
	in := bufio.NewReaderSize(archive, 256<<10)
	head, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return err
	}
	switch form := sniff(head); form {
	case formZip:
		err = u.zip()
	case formUnknown:
		err = fail(ErrInvalid, nil, "the image is %s", adviceOn(head))
	default:
		err = u.compressedTar(form, in)
	}
	if err != nil {
		return err
	}
	return u.finish()
}

// compressedTar reads a tar archive through the decompressor of form.
func (u *unpacker) compressedTar(form form, in *bufio.Reader) error {
	tarred, closeReader, err := decompress(form, in)
	if err != nil {
		return u.unreadable(err)
	}
	// The decompressors read ahead in goroutines of their own. Their reads
	// must end first, or closing them would block.
	defer closeReader()
	defer u.archive.abandon()
	if form != formTar {
		inner := bufio.NewReaderSize(tarred, tarBlock) // which the large reads pass by
		if err := u.mustBeTar(inner); err != nil {
			return err
		}
		tarred = inner
	}
	u.stream = &stream{r: tarred, left: u.limits.UnpackedBytes + streamSlack, limit: u.limits.UnpackedBytes}
	return u.tar(u.stream)
}

// mustBeTar looks at what was compressed. The tar reader would say of anything
// otherwise that it is damaged, which would not help the person who packed it.
func (u *unpacker) mustBeTar(in *bufio.Reader) error {
	head, err := in.Peek(tarBlock)
	if err != nil && err != io.EOF {
		return u.unreadable(err)
	}
	switch form := sniff(head); {
	case form == formTar, err == nil && bytes.Equal(head, make([]byte, tarBlock)): // one without entries begins with its end
		return nil
	case form == formUnknown:
		return fail(ErrInvalid, nil, "the image's archive has no tar archive in it; what was compressed is %s", adviceOn(head))
	default:
		return fail(ErrInvalid, nil, "the image is packed twice: in its archive is another one; unpack one layer")
	}
}

// count counts an entry of the archive.
func (u *unpacker) count() error {
	if err := u.ctx.Err(); err != nil {
		return context.Cause(u.ctx)
	}
	if u.entries++; u.entries > u.limits.Entries {
		return over(ErrTooManyEntries, "archive has more than the %d entries that are allowed", u.limits.Entries)
	}
	return nil
}

// entry takes one file or folder of the archive. A file that comes again replaces
// the first, as when tar has appended a newer one.
func (u *unpacker) entry(raw string, dir bool, size int64, body io.Reader) error {
	if err := u.count(); err != nil {
		return err
	}
	name, err := cleanName(raw, u.limits)
	if err != nil || name == "." {
		return err
	}
	again, err := u.names.add(name, dir)
	if err == nil && again {
		err = u.forget(name)
	}
	if err != nil {
		return err
	}
	if size < 0 || size > u.limits.UnpackedBytes-u.tree.bytes {
		return tooLarge(u.limits.UnpackedBytes)
	}
	if dir {
		return u.mkdir(name)
	}
	if err := u.mkdir(path.Dir(name)); err != nil {
		return err
	}
	u.tree.files = append(u.tree.files, name)
	return u.file(name, body)
}

// forget removes a file that was unpacked.
func (u *unpacker) forget(name string) error {
	info, err := u.root.Lstat(name)
	if err == nil {
		err = u.root.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	u.tree.bytes -= info.Size()
	u.tree.files = slices.DeleteFunc(u.tree.files, func(f string) bool { return f == name })
	return nil
}

func (u *unpacker) mkdir(name string) error {
	if err := u.root.MkdirAll(name, 0o755); err != nil {
		return fmt.Errorf("unpacking %s: %w", name, diskError(err))
	}
	return nil
}

// unreadable judges an error of reading the archive: bytes that do not come
// are not the archive's fault, all else is.
func (u *unpacker) unreadable(err error) error {
	var (
		f     *failure
		large *lzma.ErrDictSize
	)
	switch {
	case u.archive.failure() != nil:
		return u.archive.failure()
	case u.ctx.Err() != nil:
		return context.Cause(u.ctx)
	case u.stream != nil && u.stream.err != nil:
		return u.stream.err
	case errors.As(err, &f):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, xz.ErrMemlimit), errors.As(err, &large):
		return fail(ErrInvalid, err, "the archive needs a window of more than %s to decompress; compress it with zstd --long=27 or less, with xz -9 or --lzma2=dict=128MiB, or in 7-Zip with the method Deflate", humanize.IBytes(windowBytes))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fail(ErrInvalid, err, "the archive is cut off")
	default:
		return fail(ErrInvalid, err, "the archive is damaged: %v", err)
	}
}

// finish makes sure that the archive holds one machine: a .vmx file, or otherwise an
// .ovf file.
func (u *unpacker) finish() error {
	found := map[string][]string{}
	for _, name := range u.tree.files {
		ext := strings.ToLower(path.Ext(name))
		found[ext] = append(found[ext], name)
	}
	if len(u.tree.files) == 0 {
		return fail(ErrInvalid, nil, "the archive holds no file")
	}
	for _, ext := range []string{".vmx", ".ovf"} {
		switch all := found[ext]; len(all) {
		case 0:
		case 1:
			u.tree.vmx = all[0]
			return nil
		default:
			return fail(ErrInvalid, nil, "the image has %d %s files (%s and %s among them); it needs exactly one", len(all), ext, all[0], all[1])
		}
	}
	return fail(ErrInvalid, nil, "the image has no .vmx file and no .ovf file among its %d files; it needs exactly one", len(u.tree.files))
}

// streamSlack is what a tar stream may have beside the files' bytes.
const streamSlack = 64 << 20

// stream bounds a decompressed tar stream and remembers how it ended: the
// readers above it may not pass its error on as it is.
type stream struct {
	r     io.Reader
	left  int64
	limit int64
	err   error
	last  [tarBlock]byte // the last bytes read
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if s.left -= int64(n); s.left < 0 {
		s.err = tooLarge(s.limit)
		return 0, s.err
	}
	if n >= tarBlock {
		copy(s.last[:], b[n-tarBlock:n])
	} else if n > 0 {
		copy(s.last[:], s.last[n:])
		copy(s.last[tarBlock-n:], b[:n])
	}
	return n, err
}

// endsInZeroes reports whether the last block that was read is all zeroes.
func (s *stream) endsInZeroes() bool { return bytes.Equal(s.last[:], make([]byte, tarBlock)) }
