package client

import (
	"context"
	"errors"
	"net/http"
)

// The exit codes, for scripts. README explains them.
const (
	exitOK           = 0
	exitFailed       = 1   // the machine failed
	exitUsage        = 2   // the command line or the request is wrong
	exitNotFound     = 3   // no such machine or image
	exitConflict     = 4   // the state of the machine or image forbids it
	exitUnavailable  = 5   // the daemon cannot be reached, or can make no machine now
	exitTimeout      = 6   // not within --timeout
	exitUnauthorized = 7   // the daemon does not let this client, or this image's host
	exitOther        = 8   // anything else, as a fault in the daemon or a file that cannot be written
	exitInterrupted  = 130 // Ctrl-C or SIGTERM
)

// failure is an error that knows its exit code.
type failure struct {
	exit int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// refusal is the daemon's answer to a request that it did not fulfil.
type refusal struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field"`
}

func (r *refusal) Error() string {
	text := r.Message + " (" + r.Code
	if r.Field != "" {
		text += ", field " + r.Field
	}
	return text + ")"
}

func (r *refusal) exit() int {
	switch r.status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return exitUsage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitUnauthorized
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict:
		return exitConflict
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return exitUnavailable
	default:
		return exitOther
	}
}

// exitCode is what the process ends with. An interruption wins over the error
// that it caused.
func exitCode(ctx context.Context, err error) int {
	var f *failure
	var r *refusal
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &f):
		return f.exit
	case errors.As(err, &r):
		return r.exit()
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	default:
		return exitOther
	}
}
