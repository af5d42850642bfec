package vm

import (
	"errors"
	"fmt"

	"osx-builder/image"
)

// Code names a kind of failure. Codes are part of the HTTP API: they are never
// renamed or used again for something else, and the documentation explains each.
type Code string

// The codes of failures that a client may see.
const (
	CodeInvalidField          Code = "invalid-field"
	CodeUnknownField          Code = "unknown-field"
	CodeNetworkUnavailable    Code = "network-unavailable"
	CodeIdempotencyConflict   Code = "idempotency-conflict"
	CodeNameTaken             Code = "name-taken"
	CodeAmbiguous             Code = "id-ambiguous"
	CodeBusy                  Code = "busy"
	CodeNoCapacity            Code = "no-capacity"
	CodeQuota                 Code = "quota-exceeded"
	CodeShuttingDown          Code = "shutting-down"
	CodeNotFound              Code = "vm-not-found"
	CodeOpen                  Code = "vm-open-error"
	CodeDestroying            Code = "vm-destroying"
	CodePower                 Code = "vm-power-state"
	CodeDiskTooSmall          Code = "disk-too-small"
	CodeNotSupported          Code = "not-supported"
	CodeHypervisorUnavailable Code = "hypervisor-unavailable"
	CodeInternal              Code = "internal-error"

	CodeImageDownload    Code = "image-download-failed"
	CodeImageChecksum    Code = "image-checksum-mismatch"
	CodeImageUnsafe      Code = "image-unsafe"
	CodeImageInvalid     Code = "image-invalid"
	CodeImageTooLarge    Code = "image-too-large"
	CodeImageArchive     Code = "image-archive-too-large"
	CodeImageEntries     Code = "image-too-many-entries"
	CodeImageDepth       Code = "image-path-too-deep"
	CodeImagePath        Code = "image-path-too-long"
	CodeImageRatio       Code = "image-ratio-too-high"
	CodeImageStalled     Code = "image-stalled"
	CodeDiskFull         Code = "disk-full"
	CodeHypervisor       Code = "hypervisor-error"
	CodeHostDenied       Code = "host-denied"
	CodeImageNotFound    Code = "image-not-found"
	CodeImageInUse       Code = "image-in-use"
	CodeTemplateNotFound Code = "template-not-found"
	CodeGuestStopped     Code = "guest-stopped"
	CodeGuestNotReady    Code = "guest-not-ready"
	CodeIdentity         Code = "identity-not-renewed"
	CodeAttempts         Code = "too-many-attempts"
	CodeCancelled        Code = "creation-cancelled"
	CodeExpired          Code = "expired"
)

// Codes lists every Code, for the tests that require a status and an explanation
// for each.
func Codes() []Code {
	return []Code{
		CodeInvalidField, CodeUnknownField, CodeNetworkUnavailable, CodeIdempotencyConflict, CodeNameTaken, CodeAmbiguous,
		CodeBusy, CodeNoCapacity, CodeQuota, CodeShuttingDown, CodeNotFound, CodeOpen, CodeDestroying, CodeHypervisorUnavailable, CodeInternal,
		CodePower, CodeNotSupported, CodeDiskTooSmall,
		CodeHostDenied, CodeImageNotFound, CodeImageInUse, CodeTemplateNotFound,
		CodeImageDownload, CodeImageChecksum, CodeImageUnsafe, CodeImageInvalid, CodeImageTooLarge,
		CodeImageArchive, CodeImageEntries, CodeImageDepth, CodeImagePath, CodeImageRatio, CodeImageStalled,
		CodeDiskFull, CodeHypervisor, CodeGuestStopped, CodeGuestNotReady, CodeIdentity, CodeAttempts, CodeCancelled, CodeExpired,
	}
}

// Error is a failure that a client may see. Message is complete without Err, which
// is for the log.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"` // the invalid field of the request, if any
	Err     error  `json:"-"`

	// Console is the end of the guest's console, with [CodeGuestNotReady] and [CodeIdentity], or "".
	Console string `json:"console,omitempty"`

	// Errors lists all invalid fields of a request if there are several. Code, Message and Field are those of the first.
	Errors []*Error `json:"errors,omitempty"`
}

// InvalidFields returns one error for all invalid fields of a request, or nil if there are none.
func InvalidFields(errs []*Error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	first := *errs[0]
	first.Errors = errs
	return &first
}

// asError returns the *Error in err's chain, or nil.
func asError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

func (e *Error) Error() string {
	if e.Err != nil {
		return string(e.Code) + ": " + e.Message + ": " + e.Err.Error()
	}
	return string(e.Code) + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// clientError returns what a client may see of an error.
func clientError(err error) *Error {
	if known := asError(err); known != nil {
		return known
	}
	for _, c := range []struct {
		is   error
		code Code
	}{
		{image.ErrDiskFull, CodeDiskFull},
		{image.ErrTooLarge, CodeImageTooLarge},
		{image.ErrArchiveTooLarge, CodeImageArchive},
		{image.ErrTooManyEntries, CodeImageEntries},
		{image.ErrPathTooDeep, CodeImageDepth},
		{image.ErrPathTooLong, CodeImagePath},
		{image.ErrRatioTooHigh, CodeImageRatio},
		{image.ErrStalled, CodeImageStalled},
		{image.ErrUnsafe, CodeImageUnsafe},
		{image.ErrInvalid, CodeImageInvalid},
		{image.ErrChecksum, CodeImageChecksum},
		{image.ErrDownload, CodeImageDownload},
	} {
		if errors.Is(err, c.is) {
			return &Error{Code: c.code, Message: err.Error(), Err: err}
		}
	}
	if IsDiskFull(err) {
		return &Error{Code: CodeDiskFull, Message: "the disk of the data folder is full: " + err.Error(), Err: err}
	}
	return &Error{Code: CodeHypervisor, Message: err.Error(), Err: err}
}

// storeError returns what a client may see of a failure to write or remove the
// record or the folder of a machine.
func storeError(id string, err error) error {
	if known := asError(err); known != nil {
		return known
	}
	if IsDiskFull(err) {
		return &Error{Code: CodeDiskFull, Message: "the disk of the data folder is full; free space and try again", Err: err}
	}
	return &Error{Code: CodeInternal, Message: fmt.Sprintf("the record of machine %s could not be written; the daemon's log has the details; try again", id), Err: err}
}

func notFound(id string) *Error {
	return &Error{Code: CodeNotFound, Message: fmt.Sprintf("The requested virtual machine ID was not found: %.64q", id)}
}

func shuttingDown() *Error {
	return &Error{Code: CodeShuttingDown, Message: "the daemon is stopping; try again when it is back"}
}

func internalError() *Error {
	return &Error{Code: CodeInternal, Message: "internal error; the daemon's log has the details"}
}
