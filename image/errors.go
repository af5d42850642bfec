package image

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
)

// What an image can fail of. The text of an error that wraps one of these is
// complete and meant for the client: it names the URL, entry or value at fault
// and the way out, and neither a path of this host nor a secret of the URL.
var (
	ErrDownload = errors.New("image download failed")
	ErrChecksum = errors.New("image checksum mismatch")
	ErrUnsafe   = errors.New("image unsafe")
	ErrInvalid  = errors.New("image invalid")
	ErrDiskFull = errors.New("disk full")
)

// The Limits that an image can be over, each by its own name.
var (
	ErrArchiveTooLarge = errors.New("image archive too large")
	ErrTooLarge        = errors.New("image too large")
	ErrTooManyEntries  = errors.New("image has too many entries")
	ErrPathTooDeep     = errors.New("image path too deep")
	ErrPathTooLong     = errors.New("image path too long")
	ErrRatioTooHigh    = errors.New("image ratio too high")
	ErrStalled         = errors.New("image download stalled")
)

// What the Cache itself answers.
var (
	// ErrClosed ends every Ensure that a Close interrupts. Nothing failed:
	// the same Ensure on the next Cache goes on.
	ErrClosed = errors.New("image cache closed")

	// ErrInUse refuses the removal of an image that a machine needs.
	ErrInUse = errors.New("image in use")

	// ErrNotFound says that there is no such image.
	ErrNotFound = errors.New("image not found")
)

// failure is an error whose text is complete for a client. kind is one of the
// sentinels; cause, which may be nil, is for errors.Is and for the log.
type failure struct {
	kind    error
	message string
	cause   error
}

func (f *failure) Error() string { return f.message }

func (f *failure) Unwrap() []error {
	if f.cause == nil {
		return []error{f.kind}
	}
	return []error{f.kind, f.cause}
}

func fail(kind, cause error, format string, args ...any) error {
	return &failure{kind: kind, cause: cause, message: fmt.Sprintf(format, args...)}
}

// IsDiskFull reports whether err means that the disk, or the user's quota of it, is full.
func IsDiskFull(err error) bool {
	return errors.Is(err, ErrDiskFull) || isFull(err)
}

// diskError turns the error of a full disk into ErrDiskFull and returns other errors as they are.
func diskError(err error) error {
	if !IsDiskFull(err) || errors.Is(err, ErrDiskFull) {
		return err
	}
	return fail(ErrDiskFull, err, "the disk that holds the images is full: free space on it, or remove machines and images")
}

// over is the error for an image that exceeds one of the [Limits].
func over(limit error, format string, args ...any) error {
	return fail(limit, nil, "the image's "+format+"; the daemon's operator can raise that", args...)
}

func tooLarge(limit int64) error {
	return over(ErrTooLarge, "unpacked size is over the limit of %s", humanize.IBytes(uint64(max(0, limit))))
}
