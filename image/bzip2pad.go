package image

import (
	"bufio"
	"bytes"
)

// bzipEnd begins the end of a bzip2 stream. A checksum of 32 bits follows, and up to
// seven bits of padding.
var bzipEnd = []byte{0x17, 0x72, 0x45, 0x38, 0x50, 0x90}

// bzipEndBytes is the most that the end of a stream takes.
const bzipEndBytes = 11

// bzipPadding reads a bzip2 archive without the zeroes that follow it, because
// pbzip2's scanner takes the last bytes for the end of the last stream. That end may
// have zeroes, too, so all zeroes are held back until it is known what follows them.
type bzipPadding struct {
	in     *bufio.Reader
	zeroes int64              // held back
	flush  bool               // they belong to the stream
	ended  bool               // in has ended
	tail   [bzipEndBytes]byte // the last bytes that were returned
}

func (p *bzipPadding) Read(b []byte) (int, error) {
	for {
		if p.flush && p.zeroes > 0 {
			n := int(min(p.zeroes, int64(len(b))))
			clear(b[:n])
			p.zeroes -= int64(n)
			p.remember(b[:n])
			return n, nil
		}
		p.flush = false
		if _, err := p.in.Peek(1); err != nil {
			if p.ended {
				return 0, err
			}
			p.ended, p.flush, p.zeroes = true, true, p.ownZeroes()
			continue
		}
		chunk, _ := p.in.Peek(min(p.in.Buffered(), len(b)))
		data := bytes.TrimLeft(chunk, "\x00")
		if zeroes := len(chunk) - len(data); zeroes > 0 {
			p.zeroes += int64(zeroes)
			_, _ = p.in.Discard(zeroes)
			continue
		}
		if p.zeroes > 0 {
			p.flush = true
			continue
		}
		n := copy(b, bytes.TrimRight(data, "\x00"))
		_, _ = p.in.Discard(n)
		p.remember(b[:n])
		return n, nil
	}
}

func (p *bzipPadding) remember(b []byte) {
	all := append(p.tail[:bzipEndBytes:bzipEndBytes], b[max(0, len(b)-bzipEndBytes):]...)
	copy(p.tail[:], all[len(all)-bzipEndBytes:])
}

// ownZeroes returns how many of the last zeroes belong to the end of the stream.
func (p *bzipPadding) ownZeroes() int64 {
	for n := range min(p.zeroes, bzipEndBytes) + 1 {
		last := append(p.tail[n:len(p.tail):len(p.tail)], make([]byte, n)...)
		for shift := range 8 {
			var end [bzipEndBytes - 1]byte
			for i := range end {
				end[i] = byte((uint16(last[i])<<8 | uint16(last[i+1])) >> shift)
			}
			if bytes.HasPrefix(end[:], bzipEnd) && last[bzipEndBytes-1]<<(8-shift) == 0 {
				return n
			}
		}
	}
	return p.zeroes
}
