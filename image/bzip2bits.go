package image

import (
	"encoding/binary"
	"io"

	"github.com/cosnicolaou/pbzip2"
)

// Numbers of the bzip2 format: what begins a block and what ends a stream, 48
// bits each.
const (
	bzipBlockMagic = 0x314159265359
	bzipEndMagic   = 0x177245385090
)

// bzipPiece is how much of a block bzipStream holds at once, in bytes.
const bzipPiece = 32 << 10

// bzipStream reads as a bzip2 stream that has only one block, whose bits it
// shifts piece by piece: a copy of the whole would cost each worker a megabyte.
type bzipStream struct {
	data   []byte // of the block, from the bit off on
	off    int
	left   int // bits
	crc    uint32
	w      bitWriter
	unread []byte // of w
	ended  bool
}

// reset makes s the stream of b. The checksum of a stream of one block is the
// block's own.
func (s *bzipStream) reset(b *bzipBlock) {
	*s = bzipStream{
		data: b.Data, off: b.BitOffset, left: min(b.SizeInBits, 8*len(b.Data)-b.BitOffset), crc: b.CRC, w: bitWriter{b: s.w.b[:0]},
	}
	s.w.put('B', 8)
	s.w.put('Z', 8)
	s.w.put('h', 8)
	s.w.put(uint64('0'+b.StreamBlockSize/100_000), 8)
	s.w.put(bzipBlockMagic, 48)
	s.unread = s.w.b
}

// Read implements io.Reader.
func (s *bzipStream) Read(p []byte) (int, error) {
	for len(s.unread) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		s.w.b = s.w.b[:0]
		n := min(s.left, 8*bzipPiece)
		s.w.copy(s.data, s.off, n)
		s.data, s.left = s.data[n/8:], s.left-n
		if s.left == 0 {
			s.w.put(bzipEndMagic, 48)
			s.w.put(uint64(s.crc), 32)
			s.w.bytes()
			s.ended = true
		}
		s.unread = s.w.b
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// join returns the block that two blocks are if the magic between them was
// none.
func (b *bzipBlock) join(next *bzipBlock) pbzip2.CompressedBlock {
	var w bitWriter
	w.copy(b.Data, b.BitOffset, b.SizeInBits)
	w.put(bzipBlockMagic, 48)
	w.copy(next.Data, next.BitOffset, next.SizeInBits)
	joined := b.CompressedBlock
	joined.BitOffset, joined.SizeInBits = 0, 8*len(w.b)+w.pending
	joined.Data = w.bytes()
	joined.EOS, joined.StreamCRC = next.EOS, next.StreamCRC
	return joined
}

// bitWriter appends bits, the highest of a byte first.
type bitWriter struct {
	b       []byte
	acc     uint64 // its lowest pending bits are not in b yet
	pending int    // fewer than 8
}

// put appends the lowest n bits of v, at most 48, all higher bits of which are 0.
func (w *bitWriter) put(v uint64, n int) {
	w.acc = w.acc<<n | v
	w.pending += n
	for w.pending >= 8 {
		w.pending -= 8
		w.b = append(w.b, byte(w.acc>>w.pending))
	}
}

// copy appends n bits of src, or as many as it has, from the bit off on, which
// is less than 8.
func (w *bitWriter) copy(src []byte, off, n int) {
	n = min(n, 8*len(src)-off)
	for ; n >= 32 && len(src) >= 8; n -= 32 {
		w.put(binary.BigEndian.Uint64(src)<<off>>32, 32)
		src = src[4:]
	}
	for ; n > 0; n -= 8 {
		var two [2]byte
		copy(two[:], src)
		v := uint64(binary.BigEndian.Uint16(two[:])<<off) >> 8
		w.put(v>>(8-min(n, 8)), min(n, 8))
		src = src[1:]
	}
}

// bytes returns what was written, filled up with zero bits.
func (w *bitWriter) bytes() []byte {
	if w.pending > 0 {
		w.put(0, 8-w.pending)
	}
	return w.b
}
