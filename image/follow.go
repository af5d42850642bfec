package image

import (
	"context"
	"io"
)

// follower reads a part behind its writer, from the first byte on. It returns
// io.EOF only once the archive is complete and its checksum right, so that
// nobody takes a prefix for the whole.
type follower struct {
	p     *part
	ctx   context.Context
	meter *meter
	stop  func() bool // ends the watch over ctx

	// Guarded by p.mu: a decompressor may read in a goroutine of its own.
	off       int64
	err       error // the first error that is not io.EOF: why the archive cannot be read
	abandoned bool  // nobody wants another byte
}

// follow returns a new follower. Its reads end with ctx; release it with close.
func (p *part) follow(ctx context.Context, m *meter) *follower {
	f := &follower{p: p, ctx: ctx, meter: m}
	f.stop = context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grown.Broadcast()
	})
	return f
}

func (f *follower) close() { f.stop() }

// abandon ends a read that goes on in another goroutine, and all that follow.
func (f *follower) abandon() {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	f.abandoned = true
	f.p.grown.Broadcast()
}

// position returns how many bytes were read.
func (f *follower) position() int64 {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.off
}

// failure returns why the archive could not be read on, nil if it could.
func (f *follower) failure() error {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.err
}

// wait blocks until there are bytes to read, or never will be, and returns
// their offset and number.
func (f *follower) wait() (off, n int64, err error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	for {
		switch {
		case f.abandoned:
			return 0, 0, io.ErrClosedPipe
		case f.ctx.Err() != nil:
			return 0, 0, f.failed(context.Cause(f.ctx))
		case f.p.ended && f.p.err != nil:
			return 0, 0, f.failed(f.p.err)
		case f.p.size > f.off:
			return f.off, f.p.size - f.off, nil
		case f.p.ended:
			return 0, 0, io.EOF
		}
		f.p.grown.Wait()
	}
}

// failed keeps err, with p.mu held.
func (f *follower) failed(err error) error {
	if f.err == nil {
		f.err = err
	}
	return err
}

// moved takes note of how far the archive was read and how that went.
func (f *follower) moved(off int64, err error) {
	f.p.mu.Lock()
	f.off = max(f.off, off)
	if err != nil {
		f.failed(err)
	}
	now, size, ended := f.off, f.p.size, f.p.ended
	f.p.mu.Unlock()
	if ended {
		f.meter.set(Unpacking, min(now, size), size)
	}
}

// Read implements io.Reader.
func (f *follower) Read(b []byte) (int, error) {
	off, n, err := f.wait()
	if err != nil {
		return 0, err
	}
	k, err := f.p.file.ReadAt(b[:min(int64(len(b)), n)], off)
	f.moved(off+int64(k), err)
	return k, err
}

// whole waits until the archive is complete and proven, and returns it for
// reading in any order, with its size.
func (f *follower) whole() (io.ReaderAt, int64, error) {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	for !f.p.ended && f.ctx.Err() == nil {
		f.p.grown.Wait()
	}
	if f.ctx.Err() != nil {
		return nil, 0, f.failed(context.Cause(f.ctx))
	}
	if f.p.err != nil {
		return nil, 0, f.failed(f.p.err)
	}
	return f, f.p.size, nil
}

// ReadAt implements io.ReaderAt on an archive that is whole.
func (f *follower) ReadAt(b []byte, off int64) (int, error) {
	if f.ctx.Err() != nil {
		return 0, context.Cause(f.ctx)
	}
	n, err := f.p.file.ReadAt(b, off)
	failure := err
	if err == io.EOF {
		failure = nil
	}
	f.moved(off+int64(n), failure)
	return n, err
}
