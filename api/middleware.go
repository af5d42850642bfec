package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/julienschmidt/httprouter"

	"osx-builder/vm"
)

// validRequestID matches the X-Request-Id headers that the daemon accepts from clients.
var validRequestID = regexp.MustCompile(`^[A-Za-z0-9._:/+=-]{1,128}$`)

// maxValue is the largest number of bytes of a client's value in the log and in errors.
const maxValue = 256

// statusClientClosedRequest is the status in the log and the metrics of a request whose client disconnected before the
// answer. nginx uses the same number.
const statusClientClosedRequest = 499

func requestID(r *http.Request) string { return vm.RequestID(r.Context()) }

// logRequests gives each request an ID, and logs and counts it.
func (a *api) logRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !validRequestID.MatchString(id) {
			id = uuid.NewString()
		}
		w.Header().Set("X-Request-Id", id)
		if len(r.TransferEncoding) > 0 {
			// The request may also have a Content-Length. A proxy that trusts it would read the rest of the body as the
			// next request (request smuggling), so the connection is not used again.
			w.Header().Set("Connection", "close")
		}
		rec := &responseRecorder{ResponseWriter: w, status: http.StatusOK}
		started := time.Now()
		defer func() {
			duration := time.Since(started)
			if !rec.written && r.Context().Err() != nil {
				rec.status = statusClientClosedRequest
			}
			attrs := []slog.Attr{
				slog.String("request_id", id), slog.String("method", truncate(r.Method)), slog.String("path", truncate(r.URL.Path)),
				slog.Int("status", rec.status), slog.Int("bytes", rec.bytes), slog.Duration("took", duration.Round(time.Microsecond)),
			}
			if rec.token != "" {
				attrs = append(attrs, slog.String("token", rec.token))
			}
			a.Log.LogAttrs(context.Background(), requestLevel(r.Method, rec.status), "request", attrs...)
			a.Metrics.requestDone(rec, r.Method, duration)
		}()
		next.ServeHTTP(rec, r.WithContext(vm.WithRequestID(r.Context(), id)))
	})
}

// requestLevel returns the level of a request's log line. Successful reads are logged at debug: an open page alone reads
// its files, screenshots and documents many times a minute, which would hide the requests that change or refuse something.
func requestLevel(method string, status int) slog.Level {
	read := method == http.MethodGet || method == http.MethodHead
	if read && (status < http.StatusBadRequest || status == statusClientClosedRequest) {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// truncate shortens a client's value for the log and for errors.
func truncate(s string) string {
	if len(s) <= maxValue {
		return s
	}
	return strings.ToValidUTF8(s[:maxValue], "") + "..."
}

// withRoute records the path of the route that h serves.
func withRoute(path string, h httprouter.Handle) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if rec, ok := w.(*responseRecorder); ok {
			rec.route = path
		}
		h(w, r, p)
	}
}

// drainBody reads and ignores the body of a request that needs none. Until the body is read, the HTTP server does not
// notice that the client disconnects, and a waiting or streaming handler would run on. This also applies to clients
// that send Expect: 100-continue.
func drainBody(h httprouter.Handle) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if r.ContentLength != 0 {
			_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)) // errors do not matter
		}
		h(w, r, p)
	}
}

// responseRecorder records what is answered, for the log and the metrics.
type responseRecorder struct {
	http.ResponseWriter
	route, token  string // the path of the route, and the name of the client's token
	status, bytes int
	written       bool
	waits         bool // the duration depends on what the client waits for: a stream, or ?wait=
}

// markWaiting records that a request's duration is no latency: the handler waits for a machine or its output.
func markWaiting(w http.ResponseWriter) {
	if rec, ok := w.(*responseRecorder); ok {
		rec.waits = true
	}
}

func (rec *responseRecorder) WriteHeader(status int) {
	if !rec.written {
		rec.status, rec.written = status, true
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *responseRecorder) Write(b []byte) (int, error) {
	rec.written = true
	n, err := rec.ResponseWriter.Write(b)
	rec.bytes += n
	return n, err
}

// Unwrap gives [http.ResponseController] access to the connection.
func (rec *responseRecorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// recoverPanics logs a handler's panic and answers with an internal error.
func (a *api) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p) // a handler breaks the connection on purpose
			}
			a.Log.Error("panic in a handler", "request_id", requestID(r), "panic", p, "stack", string(debug.Stack()))
			if rec, ok := w.(*responseRecorder); ok && rec.written {
				panic(http.ErrAbortHandler) // the answer has begun: break the connection, so that the client notices
			}
			a.fail(w, r, &vm.Error{Code: vm.CodeInternal, Message: internalError(r)})
		}()
		next.ServeHTTP(w, r)
	})
}

// checkOrigin refuses requests that web pages of other sites send: cross-origin requests, and requests for a host name
// that is not this daemon's, which indicate DNS rebinding.
func (a *api) checkOrigin(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	hosts := append([]string{"localhost"}, a.Hosts...)
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOwnHost(r.Host, hosts) {
			a.fail(w, r, &vm.Error{Code: codeHost, Message: "the request is for host " + quote(r.Host) + ", which is not a name of this daemon; use localhost or an IP address, or add the name to -host-names"})
			return
		}
		if err := origins.Check(r); err != nil {
			a.fail(w, r, &vm.Error{Code: codeCrossOrigin, Message: "requests from web pages of other origins are refused", Err: err})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOwnHost reports whether a Host header names this daemon. An IP address always does: DNS rebinding needs a name.
func isOwnHost(header string, hosts []string) bool {
	if header == "" {
		return true // HTTP/1.0, which browsers do not use
	}
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.Trim(header, "[]")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, strings.TrimSuffix(host, ".")) })
}
