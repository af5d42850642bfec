package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/dustin/go-humanize"
)

// Reasons why a download's context was cancelled, or why it must start over.
var (
	errStalled   = errors.New("the server sends nothing")
	errStartOver = errors.New("the server does not continue what it began")
)

// download brings one URL into one part.
type download struct {
	ctx        context.Context
	client     *http.Client
	url        string
	agent      string
	fresh      bool // ask caches on the way for the server's own bytes
	part       *part
	limits     Limits
	checkSpace func(need int64) error // refuses bytes for which there is no space
	meter      *meter
	log        *slog.Logger

	heard     time.Time // when the server last had sent enough; at first, when the download began
	sizeHeard int64     // of the part at that time
}

// retryableError is an error that the next try may not meet.
type retryableError struct {
	err   error
	after time.Duration // what the server asked to wait, or 0
}

func (e *retryableError) Error() string { return e.err.Error() }
func (e *retryableError) Unwrap() error { return e.err }

// run downloads until the archive is whole and proven. It tries again after
// what may pass. errStartOver means that the bytes in the part are not those
// that the server now has.
func (d *download) run() error {
	if err := d.fill(); err != nil {
		return err
	}
	return d.prove()
}

// fill requests bytes until there are no more.
func (d *download) fill() error {
	if d.part.size > 0 && d.proven() {
		return nil // all but the end was done before
	}
	d.heard, d.sizeHeard = time.Now(), d.part.size
	for tries := 0; !d.complete(); {
		before := d.part.size
		err := d.request()
		var retry *retryableError
		if err == nil || !errors.As(err, &retry) {
			return err
		}
		if tries++; d.part.size > before {
			tries = 1
		}
		if d.part.size > 0 && d.proven() {
			return nil // only the length that the server announced was wrong
		}
		wait := max(retry.after, d.backoff(tries))
		switch {
		case wait >= d.patience():
			return d.giveUp(ErrStalled, retry, fmt.Sprintf("no byte comes within %v", d.limits.Idle))
		case tries >= d.limits.Tries:
			return d.giveUp(ErrDownload, retry, fmt.Sprintf("%d more tries brought nothing", tries-1))
		}
		d.log.Warn("image download interrupted", "url", PublicURL(d.url), "error", reason(retry.err), "bytes", d.part.size, "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-d.ctx.Done():
			return context.Cause(d.ctx)
		}
	}
	return nil
}

// patience is how long the server may still go without a byte.
func (d *download) patience() time.Duration { return d.limits.Idle - time.Since(d.heard) }

// giveUp ends a download that another request may go on with.
func (d *download) giveUp(kind error, last *retryableError, why string) error {
	d.part.broken = true
	return fail(kind, last.err, "downloading %s: %v, and %s; %s of %s are there and stay for the next request",
		PublicURL(d.url), reason(last.err), why, size(d.part.size), size(d.part.origin.Total))
}

func (d *download) proven() bool { return d.part.digest() == d.part.sum.Hex }

func (d *download) complete() bool {
	return d.part.origin.Total >= 0 && d.part.size == d.part.origin.Total
}

// quota is how many bytes a server must send within Limits.Stall. One that sends
// fewer counts as silent, because it would hold a creation for ever.
func (d *download) quota() int64 {
	return int64(float64(d.limits.MinRate) * min(d.limits.Stall, d.limits.Idle).Seconds())
}

// stalled names what a server did that ran out of time.
func (d *download) stalled() error {
	if d.part.size == d.sizeHeard {
		return errStalled
	}
	return fmt.Errorf("the server sends less than %s a second", humanize.IBytes(uint64(d.limits.MinRate)))
}

// backoff doubles with each try and varies by a fifth.
func (d *download) backoff(tries int) time.Duration {
	wait := d.limits.RetryWait << min(tries-1, 5)
	return wait - wait/5 + rand.N(wait*2/5+1) // #nosec G404 -- not a secret
}

func size(n int64) string {
	if n < 0 {
		return "an unknown size"
	}
	return humanize.IBytes(uint64(n))
}

// request makes one request and takes what it brings.
func (d *download) request() error {
	ctx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	dog := time.AfterFunc(min(d.limits.Stall, d.patience()), func() { cancel(errStalled) })
	defer dog.Stop()

	req, err := d.newRequest()
	if err != nil {
		return fail(ErrDownload, err, "downloading %s: %s", PublicURL(d.url), reason(err))
	}
	res, err := d.client.Do(req.WithContext(ctx))
	if err != nil {
		return d.broken(ctx, err)
	}
	defer res.Body.Close()
	if err := d.accept(res); err != nil {
		return err
	}
	if d.complete() {
		return nil
	}
	return d.receive(ctx, res.Body, dog)
}

// broken judges an error of the connection.
func (d *download) broken(ctx context.Context, err error) error {
	switch {
	case d.ctx.Err() != nil:
		return context.Cause(d.ctx)
	case context.Cause(ctx) == errStalled:
		return &retryableError{err: fmt.Errorf("%w for %v", d.stalled(), time.Since(d.heard).Round(time.Millisecond))}
	case retryable(err):
		return &retryableError{err: err}
	default:
		return fail(ErrDownload, err, "downloading %s: %s", PublicURL(d.url), reason(err))
	}
}

// expect takes note of a body that begins at first, of a file of total bytes.
func (d *download) expect(res *http.Response, first, total int64) error {
	o := originOf(d.url, res, total)
	if first != d.part.size {
		return errStartOver
	}
	if first > 0 {
		if !d.part.origin.fits(o) {
			return errStartOver
		}
		d.part.stitched = true
		if o.Total < 0 {
			o.Total = d.part.origin.Total
		}
	}
	if o.Total > d.limits.DownloadBytes {
		return over(ErrArchiveTooLarge, "archive is over the limit of %s", humanize.IBytes(uint64(d.limits.DownloadBytes)))
	}
	if err := d.checkSpace(max(0, o.Total-first)); err != nil {
		return err
	}
	d.part.origin = o
	d.meter.set(Downloading, first, o.Total)
	return nil
}

// receive copies a body to the part until it ends, breaks or stalls.
func (d *download) receive(ctx context.Context, body io.Reader, dog *time.Timer) error {
	buf := make([]byte, 1<<20)
	quota := d.quota()
	budget := spaceBudget{check: d.checkSpace}
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if d.part.size+int64(n)-d.sizeHeard >= quota {
				d.heard, d.sizeHeard = time.Now(), d.part.size+int64(n)
				dog.Reset(min(d.limits.Stall, d.limits.Idle))
			}
			if d.part.size+int64(n) > d.limits.DownloadBytes {
				return over(ErrArchiveTooLarge, "archive is over the limit of %s", humanize.IBytes(uint64(d.limits.DownloadBytes)))
			}
			if err := budget.reserve(int64(n)); err != nil {
				return err
			}
			if _, err := d.part.Write(buf[:n]); err != nil {
				return err
			}
			d.part.saveSoon()
			d.meter.set(Downloading, d.part.size, d.part.origin.Total)
		}
		switch {
		case err == io.EOF && d.part.size < d.part.origin.Total:
			return &retryableError{err: errors.New("the server ended the transfer early")}
		case err == io.EOF:
			return nil
		case err != nil:
			return d.broken(ctx, err)
		}
	}
}

// prove compares the checksum.
func (d *download) prove() error {
	if d.proven() {
		return nil
	}
	return fail(ErrChecksum, nil, "the %s of %s (%s) is %s, not %s: check image.checksum, or whether the file at image.url was replaced",
		d.part.sum.Type, PublicURL(d.url), size(d.part.size), d.part.digest(), d.part.sum.Hex)
}
