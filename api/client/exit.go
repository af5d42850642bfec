package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The exit codes, for scripts. README.md documents them.
const (
	exitOK           = 0
	exitFailed       = 1   // the machine failed
	exitUsage        = 2   // the command line or the request is invalid
	exitNotFound     = 3   // the machine or image does not exist
	exitConflict     = 4   // the state of the machine or image does not allow it
	exitUnavailable  = 5   // the daemon cannot be reached or cannot create machines now
	exitTimeout      = 6   // --timeout was reached
	exitUnauthorized = 7   // the daemon refuses this client or the image's host
	exitOther        = 8   // any other error, such as a bug in the daemon or a file that cannot be written
	exitInterrupted  = 130 // Ctrl-C or SIGTERM
)

// exitError is an error with an exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

// usageError returns an error in the command line that is found only after the verb has started.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// apiError is an error that the daemon returned.
type apiError struct {
	status  int
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Field   string      `json:"field"`
	Errors  []*apiError `json:"errors"` // of all invalid fields, if there are several

	flag string // the flag that sets the field, or ""
}

// Error returns a line for each invalid field.
func (e *apiError) Error() string {
	if len(e.Errors) > 0 {
		var lines []string
		for _, each := range e.Errors {
			lines = append(lines, each.Error())
		}
		return strings.Join(lines, "\n")
	}
	text := e.Message + " (" + e.Code
	if e.Field != "" {
		text += ", field " + e.Field
	}
	if e.flag != "" {
		text += ", flag --" + e.flag
	}
	text += ")"
	if e.status == http.StatusUnauthorized {
		text += "; name the file with the token with --token-file or OSX_BUILDER_TOKEN_FILE"
	}
	return text
}

// all returns the errors of all invalid fields.
func (e *apiError) all() []*apiError {
	if len(e.Errors) > 0 {
		return e.Errors
	}
	return []*apiError{e}
}

func (e *apiError) exitCode() int {
	switch e.status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return exitUsage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitUnauthorized
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict:
		return exitConflict
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return exitUnavailable
	default:
		return exitOther
	}
}

// exitCode returns the exit code for an error. If the process was interrupted, the code says so, whatever the error.
func exitCode(ctx context.Context, err error) int {
	var withCode *exitError
	var fromAPI *apiError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &withCode):
		return withCode.code
	case errors.As(err, &fromAPI):
		return fromAPI.exitCode()
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	default:
		return exitOther
	}
}
