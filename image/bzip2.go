package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/cosnicolaou/pbzip2"
	"github.com/dsnet/compress/bzip2"
)

// bzip2 blocks can be decompressed side by side: pbzip2's scanner finds them.
// Its decompressor keeps whole blocks in memory, though, and a block of 900 kB
// can unpack to 46 MB, as every block of an empty disk does. Here a block
// waits for its turn once it has a few chunks ready.
const (
	bzipChunk  = 256 << 10
	bzipChunks = 4 // ready chunks of a block; most blocks fit into them

	// bzipWorkers is how many blocks are decompressed at once, each of which
	// takes some 11 MB.
	bzipWorkers = 4

	// bzipGarbage is after how many blocks garbage is collected. The scanner
	// makes a megabyte of it for each, and the collector would let that grow to
	// as much as all workers have.
	bzipGarbage = 8
)

// bzip2Reader decompresses bzip2 in order, on all processors.
type bzip2Reader struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	order   chan *bzipBlock // as they follow each other
	free    chan []byte     // chunks to be used again
	scanErr error           // final once order is closed

	block   *bzipBlock // being read
	emitted bool       // a byte of it was
	merged  bool       // it was made of two
	chunk   []byte     // its last one
	rest    []byte     // of chunk
	crc     uint32     // of the stream so far
	err     error
}

// bzipBlock is a block on its way through a worker.
type bzipBlock struct {
	pbzip2.CompressedBlock
	chunks chan []byte // closed when err is final
	err    error
}

func newBzipBlock(b pbzip2.CompressedBlock) *bzipBlock {
	return &bzipBlock{CompressedBlock: b, chunks: make(chan []byte, bzipChunks)}
}

// newBzip2Reader reads from in, which has at least the header buffered. Close
// it after reads of in have been made to end.
func newBzip2Reader(in *bufio.Reader) *bzip2Reader {
	workers := min(runtime.GOMAXPROCS(0), bzipWorkers)
	r := &bzip2Reader{order: make(chan *bzipBlock, workers), free: make(chan []byte, workers*bzipChunks)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	work := make(chan *bzipBlock)
	r.running.Go(func() {
		defer close(r.order)
		defer close(work)
		r.scanErr = guarded(func() error { return r.scan(in, work) })
	})
	for range workers {
		r.running.Go(func() {
			var d bzipDecoder
			for b := range work {
				r.decode(b, &d)
			}
		})
	}
	return r
}

func (r *bzip2Reader) close() {
	r.cancel()
	r.running.Wait()
}

// guarded turns a panic of a decoder, which hostile bytes may cause, into an
// error.
func guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("bzip2: %v", v)
		}
	}()
	return f()
}

// scan finds the blocks.
func (r *bzip2Reader) scan(in io.Reader, work chan<- *bzipBlock) error {
	sc := pbzip2.NewScanner(in)
	for n := 1; sc.Scan(r.ctx); n++ {
		if n%bzipGarbage == 0 {
			runtime.GC()
		}
		b := newBzipBlock(sc.Block())
		for _, to := range []chan<- *bzipBlock{r.order, work} {
			select {
			case to <- b:
			case <-r.ctx.Done():
				return r.ctx.Err()
			}
		}
	}
	return sc.Err()
}

// bzipDecoder is what a worker uses again for each block.
type bzipDecoder struct {
	bzip2.Reader
	stream bzipStream
}

// newChunk returns an empty chunk.
func (r *bzip2Reader) newChunk() []byte {
	select {
	case c := <-r.free:
		return c[:bzipChunk]
	default:
		return make([]byte, bzipChunk)
	}
}

// decode decompresses a block into its chunks.
func (r *bzip2Reader) decode(b *bzipBlock, d *bzipDecoder) {
	defer close(b.chunks)
	if b.SizeInBits <= 0 {
		return // a stream of nothing
	}
	b.err = guarded(func() error {
		d.stream.reset(b)
		if err := d.Reset(&d.stream); err != nil {
			return err
		}
		for {
			chunk := r.newChunk()
			n, err := fill(chunk, d)
			if n > 0 {
				select {
				case b.chunks <- chunk[:n]:
				case <-r.ctx.Done():
					return r.ctx.Err()
				}
			}
			if err == io.EOF {
				b.Data = nil // which only a merge would need
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
}

// Read implements io.Reader.
func (r *bzip2Reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.err = r.advance()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// advance takes the next chunk, or what follows the last one.
func (r *bzip2Reader) advance() error {
	if r.block == nil {
		b, ok := <-r.order
		if !ok && r.scanErr != nil {
			return r.scanErr
		}
		if !ok {
			return io.EOF
		}
		r.block, r.emitted, r.merged = b, false, false
	}
	if chunk, ok := <-r.block.chunks; ok {
		r.recycle()
		r.chunk, r.rest, r.emitted = chunk, chunk, true
		return nil
	}
	if r.block.err != nil {
		return r.merge()
	}
	b := r.block
	r.block = nil
	r.crc = (r.crc<<1 | r.crc>>31) ^ b.CRC
	if !b.EOS {
		return nil
	}
	if r.crc != b.StreamCRC {
		return errors.New("bzip2: the stream's checksum does not match")
	}
	r.crc = 0
	return nil
}

// recycle gives back the chunk that was read to its end.
func (r *bzip2Reader) recycle() {
	if r.chunk == nil {
		return
	}
	select {
	case r.free <- r.chunk:
	default:
	}
	r.chunk = nil
}

// merge joins a block that cannot be decompressed with the next one: its bits
// may hold what looks like the beginning of a block, and was taken for it.
func (r *bzip2Reader) merge() error {
	b := r.block
	if r.emitted || r.merged || b.EOS {
		return b.err
	}
	next, ok := <-r.order
	if !ok {
		return b.err
	}
	for range next.chunks { // its worker has others to serve
		continue
	}
	r.block, r.merged = newBzipBlock(b.join(next)), true
	b = r.block
	r.running.Go(func() { r.decode(b, new(bzipDecoder)) })
	return nil
}
