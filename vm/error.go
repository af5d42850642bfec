package vm

// Code names a kind of failure. Codes are part of the HTTP API: they are never
// renamed nor used again for something else, and README explains each.
type Code string

// The codes of failures that a client may see.
const (
	CodeInvalidField          Code = "invalid-field"
	CodeUnknownField          Code = "unknown-field"
	CodeNetworkUnavailable    Code = "network-unavailable"
	CodeIdempotencyConflict   Code = "idempotency-conflict"
	CodeBusy                  Code = "busy"
	CodeNoCapacity            Code = "no-capacity"
	CodeShuttingDown          Code = "shutting-down"
	CodeNotFound              Code = "vm-not-found"
	CodeOpen                  Code = "vm-open-error"
	CodeDestroying            Code = "vm-destroying"
	CodePower                 Code = "vm-power-state"
	CodeNotSupported          Code = "not-supported"
	CodeHypervisorUnavailable Code = "hypervisor-unavailable"
	CodeInternal              Code = "internal-error"

	CodeImageDownload Code = "image-download-failed"
	CodeImageChecksum Code = "image-checksum-mismatch"
	CodeImageUnsafe   Code = "image-unsafe"
	CodeImageInvalid  Code = "image-invalid"
	CodeImageTooLarge Code = "image-too-large"
	CodeImageArchive  Code = "image-archive-too-large"
	CodeImageEntries  Code = "image-too-many-entries"
	CodeImageDepth    Code = "image-path-too-deep"
	CodeImagePath     Code = "image-path-too-long"
	CodeImageRatio    Code = "image-ratio-too-high"
	CodeImageStalled  Code = "image-stalled"
	CodeDiskFull      Code = "disk-full"
	CodeHypervisor    Code = "hypervisor-error"
	CodeHostDenied    Code = "host-denied"
	CodeImageNotFound Code = "image-not-found"
	CodeImageInUse    Code = "image-in-use"
	CodeGuestStopped  Code = "guest-stopped"
	CodeAttempts      Code = "too-many-attempts"
	CodeCancelled     Code = "creation-cancelled"
	CodeExpired       Code = "expired"
)

// Codes lists every Code, for the tests that hold each to a status and to an
// entry in README.
func Codes() []Code {
	return []Code{
		CodeInvalidField, CodeUnknownField, CodeNetworkUnavailable, CodeIdempotencyConflict,
		CodeBusy, CodeNoCapacity, CodeShuttingDown, CodeNotFound, CodeOpen, CodeDestroying, CodeHypervisorUnavailable, CodeInternal,
		CodePower, CodeNotSupported,
		CodeHostDenied, CodeImageNotFound, CodeImageInUse,
		CodeImageDownload, CodeImageChecksum, CodeImageUnsafe, CodeImageInvalid, CodeImageTooLarge,
		CodeImageArchive, CodeImageEntries, CodeImageDepth, CodeImagePath, CodeImageRatio, CodeImageStalled,
		CodeDiskFull, CodeHypervisor, CodeGuestStopped, CodeAttempts, CodeCancelled, CodeExpired,
	}
}

// Error is a failure that a client is told of. Message is complete without
// Err, which is for the log.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"` // the request's field at fault, if one is
	Err     error  `json:"-"`
}

func (e *Error) Error() string {
	if e.Err != nil {
		return string(e.Code) + ": " + e.Message + ": " + e.Err.Error()
	}
	return string(e.Code) + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Err }
