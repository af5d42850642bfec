package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// maxRestarts is how often one fetch starts over because a server does not
// continue what it began.
const maxRestarts = 3

// When the unpacker has refused an archive whose download is nearly done, the
// checksum is worth waiting for: it may tell that these are not the bytes that
// were asked for at all.
const (
	graceBytes = 16 << 20
	graceTime  = 5 * time.Second
)

// errRefused cancels a download whose bytes the unpacker has refused.
var errRefused = errors.New("the archive was refused")

// fetch makes an image from one URL. What is left of the download stays on
// disk only where it can be of use: after an interruption, or a transfer that
// broke.
func (c *Cache) fetch(f *fetchGroup, url string) (gold Gold, err error) {
	p, err := openPart(f.ctx, c.partPath(f.sum), f.sum)
	if err != nil {
		return Gold{}, err
	}
	defer func() {
		keep := err != nil && (f.ctx.Err() != nil || p.broken)
		if cerr := p.close(keep); cerr != nil && err == nil {
			c.log.Warn("leftover of a download not removed", "image", f.sum, "error", cerr)
		}
	}()
	for restarts, fresh := 0, false; ; restarts++ {
		if err := p.begin(fresh); err != nil {
			return Gold{}, err
		}
		gold, err = c.attempt(f, url, p, fresh)
		again := errors.Is(err, errStartOver) || errors.Is(err, ErrChecksum) && p.stitched
		if !again || f.ctx.Err() != nil {
			return gold, err
		}
		if restarts == maxRestarts {
			return Gold{}, fail(ErrDownload, err, "downloading %s: the connection broke %d times and the server does not continue where it stopped",
				PublicURL(url), restarts+1)
		}
		c.log.Info("image download starts over", "image", f.sum, "url", PublicURL(url), "reason", err)
		fresh = true
	}
}

// attempt downloads, proves, unpacks, checks and publishes, in that order as
// far as the result goes; the first three overlap.
func (c *Cache) attempt(f *fetchGroup, url string, p *part, fresh bool) (Gold, error) {
	staging, err := os.MkdirTemp(c.dir, ".staging-")
	if err != nil {
		return Gold{}, fmt.Errorf("unpacking: %w", diskError(err))
	}
	defer func() { _ = removeTree(staging) }() // what stays is swept by the next Open

	u, err := c.downloadAndUnpack(f, url, p, fresh, staging)
	if err != nil {
		return Gold{}, err
	}
	if err := c.prepare(u, staging); err != nil {
		return Gold{}, err
	}
	return c.publish(f.ctx, staging, &u.tree, url, p)
}

// downloadAndUnpack fills staging while the archive arrives.
func (c *Cache) downloadAndUnpack(f *fetchGroup, url string, p *part, fresh bool, staging string) (*unpacker, error) {
	root, err := os.OpenRoot(staging)
	if err != nil {
		return nil, fmt.Errorf("unpacking: %w", err)
	}
	defer root.Close()
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)

	f.meter.set(Downloading, p.size, p.origin.Total)
	d := &download{
		ctx: ctx, client: c.client, url: url, agent: c.opts.UserAgent, fresh: fresh,
		part: p, limits: c.limits, checkSpace: c.checkSpace, meter: f.meter, log: c.log,
	}
	downloaded := make(chan error, 1)
	go func() {
		before := p.size
		err := d.run()
		c.opts.Downloaded(max(0, p.size-before), err)
		p.end(err)
		downloaded <- err
	}()

	follower := p.follow(ctx, f.meter)
	defer follower.close()
	u := newUnpacker(ctx, root, c.limits, c.checkSpace)
	unpackErr := u.unpack(follower)
	if unpackErr == nil {
		err := <-downloaded
		f.meter.set(Unpacking, p.size, p.size)
		u.ctx = f.ctx // the download's own ends with it
		return u, err
	}
	ownErr := follower.failure() == nil // and not just that no more bytes came
	if ownErr {
		t := time.AfterFunc(grace(f.meter), func() { cancel(errRefused) })
		defer t.Stop()
	}
	downloadErr := <-downloaded
	switch {
	case f.ctx.Err() != nil:
		return nil, context.Cause(f.ctx)
	case downloadErr != nil && ownErr && p.stitched:
		// What was refused may be the fault of pieces that do not belong together.
		return nil, fmt.Errorf("%w: %w", errStartOver, unpackErr)
	case downloadErr == nil, errors.Is(downloadErr, errRefused):
		return nil, unpackErr
	case ownErr && !errors.Is(downloadErr, ErrChecksum) && !errors.Is(downloadErr, errStartOver):
		return nil, unpackErr
	default:
		return nil, downloadErr
	}
}

// grace is how long a download may go on after the unpacker has refused it.
func grace(m *meter) time.Duration {
	if now, _ := m.get(); now.Total >= 0 && now.Total-now.Bytes <= graceBytes {
		return graceTime
	}
	return 0
}
