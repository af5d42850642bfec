package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
)

// holeBytes is the unit in which runs of zeroes become holes. Smaller ones
// would cost more in extents and calls than they save.
const holeBytes = 64 << 10

// file writes one file. Blocks of zeroes are left out, so that an empty disk
// takes no space.
func (u *unpacker) file(name string, body io.Reader) (err error) {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", name, diskError(err))
	}
	allowHoles(f)
	defer func() {
		if cerr := f.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("unpacking %s: %w", name, diskError(cerr))
		}
	}()
	var size int64
	for {
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		n, rerr := fill(u.buf, body)
		if u.tree.bytes += int64(n); u.tree.bytes > u.limits.UnpackedBytes {
			return tooLarge(u.limits.UnpackedBytes)
		}
		if err := u.writeBlocks(f, size, u.buf[:n]); err != nil {
			return err
		}
		size += int64(n)
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return u.unreadable(rerr)
		}
	}
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("unpacking %s: %w", name, diskError(err))
	}
	return nil
}

// fill reads until b is full or r ends. Unlike io.ReadFull it passes r's error
// on as it is, so that a file that is cut off differs from one that is short.
func fill(b []byte, r io.Reader) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = r.Read(b[n:])
		n += k
	}
	return n, err
}

// writeBlocks writes b, which begins at off, without its blocks of zeroes. off
// is a multiple of holeBytes.
func (u *unpacker) writeBlocks(f *os.File, off int64, b []byte) error {
	for len(b) > 0 {
		zeroes := runOf(b, true)
		b, off = b[zeroes:], off+int64(zeroes)
		data := runOf(b, false)
		if data == 0 {
			continue
		}
		if err := u.account(int64(data)); err != nil {
			return err
		}
		if _, err := f.WriteAt(b[:data], off); err != nil {
			return fmt.Errorf("unpacking: %w", diskError(err))
		}
		b, off = b[data:], off+int64(data)
	}
	return nil
}

var zeroBlock [holeBytes]byte

// runOf returns the length of the blocks at the beginning of b that are, or
// are not, all zeroes.
func runOf(b []byte, zeroes bool) int {
	n := 0
	for n < len(b) {
		block := b[n:min(len(b), n+holeBytes)]
		if bytes.Equal(block, zeroBlock[:len(block)]) != zeroes {
			break
		}
		n += len(block)
	}
	return n
}

// account refuses bytes for which there is no space, and bombs.
func (u *unpacker) account(n int64) error {
	u.written += n
	if u.written > ratioFloor && u.written/int64(u.limits.Ratio) > u.archive.position() {
		return over(ErrRatioTooHigh, "files have more than %d bytes for each byte of its archive, the limit for what is no bomb", u.limits.Ratio)
	}
	return u.budget.reserve(n)
}
