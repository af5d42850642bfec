package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

// The codes of errors in the HTTP request itself.
const (
	codePath        vm.Code = "not-found"
	codeMethod      vm.Code = "method-not-allowed"
	codeMediaType   vm.Code = "unsupported-media-type"
	codeJSON        vm.Code = "invalid-json"
	codeTrailing    vm.Code = "trailing-data"
	codeBody        vm.Code = "body-too-large"
	codeHost        vm.Code = "host-refused"
	codeCrossOrigin vm.Code = "cross-origin-refused"

	codeUnauthorized vm.Code = "unauthorized"
	codeForbidden    vm.Code = "forbidden"
)

// statuses maps each code to its HTTP status.
var statuses = map[vm.Code]int{
	codePath:        http.StatusNotFound,
	codeMethod:      http.StatusMethodNotAllowed,
	codeMediaType:   http.StatusUnsupportedMediaType,
	codeJSON:        http.StatusUnsupportedMediaType,
	codeTrailing:    http.StatusBadRequest,
	codeBody:        http.StatusRequestEntityTooLarge,
	codeHost:        http.StatusForbidden,
	codeCrossOrigin: http.StatusForbidden,

	codeUnauthorized: http.StatusUnauthorized,
	codeForbidden:    http.StatusForbidden,

	vm.CodeInvalidField:          http.StatusBadRequest,
	vm.CodeUnknownField:          http.StatusBadRequest,
	vm.CodeNetworkUnavailable:    http.StatusBadRequest,
	vm.CodeIdempotencyConflict:   http.StatusConflict,
	vm.CodeNameTaken:             http.StatusConflict,
	vm.CodeAmbiguous:             http.StatusConflict,
	vm.CodeBusy:                  http.StatusServiceUnavailable,
	vm.CodeNoCapacity:            http.StatusServiceUnavailable,
	vm.CodeQuota:                 http.StatusTooManyRequests,
	vm.CodeShuttingDown:          http.StatusServiceUnavailable,
	vm.CodeNotFound:              http.StatusNotFound,
	vm.CodeOpen:                  http.StatusConflict,
	vm.CodeDestroying:            http.StatusConflict,
	vm.CodePower:                 http.StatusConflict,
	vm.CodeDiskTooSmall:          http.StatusBadRequest,
	vm.CodeNotSupported:          http.StatusNotImplemented,
	vm.CodeHypervisorUnavailable: http.StatusServiceUnavailable,
	vm.CodeInternal:              http.StatusInternalServerError,

	vm.CodeImageDownload:    http.StatusBadGateway,
	vm.CodeImageChecksum:    http.StatusUnprocessableEntity,
	vm.CodeImageUnsafe:      http.StatusUnprocessableEntity,
	vm.CodeImageInvalid:     http.StatusUnprocessableEntity,
	vm.CodeImageTooLarge:    http.StatusUnprocessableEntity,
	vm.CodeImageArchive:     http.StatusUnprocessableEntity,
	vm.CodeImageEntries:     http.StatusUnprocessableEntity,
	vm.CodeImageDepth:       http.StatusUnprocessableEntity,
	vm.CodeImagePath:        http.StatusUnprocessableEntity,
	vm.CodeImageRatio:       http.StatusUnprocessableEntity,
	vm.CodeImageStalled:     http.StatusGatewayTimeout,
	vm.CodeDiskFull:         http.StatusInsufficientStorage,
	vm.CodeHostDenied:       http.StatusForbidden,
	vm.CodeImageNotFound:    http.StatusNotFound,
	vm.CodeTemplateNotFound: http.StatusNotFound,
	vm.CodeImageInUse:       http.StatusConflict,
	vm.CodeHypervisor:       http.StatusInternalServerError,
	vm.CodeGuestStopped:     http.StatusInternalServerError,
	vm.CodeGuestNotReady:    http.StatusInternalServerError,
	vm.CodeIdentity:         http.StatusInternalServerError,
	vm.CodeAttempts:         http.StatusInternalServerError,
	vm.CodeCancelled:        http.StatusConflict,
	vm.CodeExpired:          http.StatusConflict,
}

// Statuses returns the HTTP status of every error code.
func Statuses() map[vm.Code]int {
	all := make(map[vm.Code]int, len(statuses))
	for code, status := range statuses {
		all[code] = status
	}
	return all
}

// retryAfter is the value of the Retry-After header, in seconds.
const retryAfter = "5"

// handler is an [httprouter.Handle] that returns an error.
type handler func(http.ResponseWriter, *http.Request, httprouter.Params) error

func (a *api) handle(h handler) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if err := h(w, r, p); err != nil {
			a.fail(w, r, err)
		}
	}
}

// fail answers with an error's code and message. An error that is not a [vm.Error] becomes an internal error; the log
// has its details.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return // the client has disconnected
	}
	known, ok := errors.AsType[*vm.Error](err)
	if !ok {
		known = &vm.Error{Code: vm.CodeInternal, Message: internalError(r)}
	}
	status, ok := statuses[known.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	if status >= http.StatusInternalServerError {
		a.Log.Error("request failed", "request_id", requestID(r), "code", known.Code, "err", err)
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", retryAfter)
	}
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // do not wait for the rest of the body
	}
	if err := encode(w, status, known); err != nil {
		a.Log.Debug("writing the answer failed", "request_id", requestID(r), "err", err)
	}
}

// internalError is the message of an error whose details are only in the log.
func internalError(r *http.Request) string {
	return "internal error; the daemon's log has the details of request " + requestID(r)
}

// encode writes a JSON answer, indented for people who read it in a terminal.
func encode(w http.ResponseWriter, status int, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	b = append(indent(b), '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that has disconnected is not an error
	return nil
}

// quote shortens and quotes a client's value for messages.
func quote(s string) string { return fmt.Sprintf("%.200q", s) }
