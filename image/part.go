package image

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
)

// part is an archive on its way to disk: the file <type>-<sum>.part, the hash
// of its bytes, and beside it the state that a resumed download needs. One
// goroutine writes; followers read behind it.
type part struct {
	path string
	sum  Sum
	file *os.File
	hash hash.Hash

	origin   origin // of the bytes; written by the writing goroutine
	stitched bool   // the bytes came in more than one piece
	broken   bool   // the transfer broke off and may go on another time
	saver    saver

	mu    sync.Mutex
	grown sync.Cond // on mu: size, ended or a follower's context changed
	size  int64     // bytes in the file, all of them in the hash
	ended bool      // no byte follows
	err   error     // why it ended, nil if it is complete and proven
}

// openPart opens or creates the part of sum at path. Bytes that an earlier
// process left are taken over: those that its saved hash state has not seen
// are read once.
func openPart(ctx context.Context, path string, sum Sum) (*part, error) {
	p := &part{path: path, sum: sum, hash: sum.hash()}
	p.grown.L = &p.mu
	var err error
	if p.file, err = os.OpenFile(p.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("opening the download: %w", diskError(err))
	}
	if err := p.resume(ctx); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	return p, nil
}

func (p *part) resume(ctx context.Context) error {
	info, err := p.file.Stat()
	if err != nil {
		return fmt.Errorf("resuming a download: %w", err)
	}
	p.origin.Total = -1
	if info.Size() == 0 {
		return nil
	}
	hashed := p.load(info.Size())
	rest := io.NewSectionReader(p.file, hashed, info.Size()-hashed)
	if _, err := io.CopyBuffer(p.hash, &contextReader{ctx, rest}, make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("resuming a download: %w", err)
	}
	p.size, p.stitched = info.Size(), true
	return nil
}

// contextReader ends a long read of a file with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}

// Write appends to the file and the hash and wakes the followers.
func (p *part) Write(b []byte) (int, error) {
	n, err := p.file.WriteAt(b, p.size)
	p.hash.Write(b[:n])
	p.mu.Lock()
	p.size += int64(n)
	p.grown.Broadcast()
	p.mu.Unlock()
	if err != nil {
		return n, fmt.Errorf("writing the download: %w", diskError(err))
	}
	return n, nil
}

// end signals the followers that no byte follows: with nil because the archive
// is complete and its checksum matches, otherwise with the reason.
func (p *part) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended, p.err = true, err
	p.grown.Broadcast()
}

// digest returns the checksum of the bytes so far.
func (p *part) digest() string { return hex.EncodeToString(p.hash.Sum(nil)) }

// begin makes the part ready for one more attempt; no follower is left of
// another one. With fresh it is emptied.
func (p *part) begin(fresh bool) error {
	p.ended, p.err = false, nil
	if !fresh {
		return nil
	}
	p.saver.wait()
	if err := removeIfThere(p.path + ".json"); err != nil {
		return fmt.Errorf("starting a download over: %w", err)
	}
	p.hash.Reset()
	p.size, p.stitched, p.origin = 0, false, origin{Total: -1}
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("starting a download over: %w", err)
	}
	return nil
}

// close keeps the part for a later process, with its state, or removes it.
func (p *part) close(keep bool) error {
	p.saver.wait()
	if keep && p.size > 0 {
		return errors.Join(p.save(), p.file.Close())
	}
	return errors.Join(p.file.Close(), removePart(p.path))
}

// removePart removes the part at path with its state.
func removePart(path string) error {
	return errors.Join(removeIfThere(path+".json"), removeIfThere(path))
}

func removeIfThere(path string) error {
	if err := Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
