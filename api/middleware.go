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

// saneID is what a caller's X-Request-Id may look like.
var saneID = regexp.MustCompile(`^[A-Za-z0-9._:/+=-]{1,128}$`)

// maxLogged bounds what a client can have written into the log, in bytes.
const maxLogged = 256

func requestID(r *http.Request) string { return vm.RequestID(r.Context()) }

// log gives each request an ID and one line in the log.
func (a *api) log(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !saneID.MatchString(id) {
			id = uuid.NewString()
		}
		w.Header().Set("X-Request-Id", id)
		if len(r.TransferEncoding) > 0 {
			// A proxy that goes by a Content-Length beside it would take what
			// follows for the next request.
			w.Header().Set("Connection", "close")
		}
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		started := time.Now()
		defer func() {
			took := time.Since(started)
			a.Log.LogAttrs(context.Background(), slog.LevelInfo, "request",
				slog.String("request_id", id), slog.String("method", cut(r.Method)), slog.String("path", cut(r.URL.Path)),
				slog.Int("status", rec.status), slog.Int("bytes", rec.bytes), slog.Duration("took", took.Round(time.Microsecond)))
			a.Metrics.answered(rec.route, r.Method, rec.status, took)
		}()
		next.ServeHTTP(rec, r.WithContext(vm.WithRequestID(r.Context(), id)))
	})
}

// cut shortens what a client sent, for the log.
func cut(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	return s[:maxLogged] + "..."
}

// noted notes the route that a request takes.
func noted(path string, h httprouter.Handle) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if rec, ok := w.(*recorder); ok {
			rec.route = path
		}
		h(w, r, p)
	}
}

// bare reads the body, if there is one, of a request that needs none: before
// its end the server does not look whether the client has left, and an answer
// that is waited for, or that goes on, would be for nobody. So it is where the
// client waits to be told to send it (Expect: 100-continue).
func bare(h httprouter.Handle) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if r.ContentLength != 0 {
			_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)) // whatever it is
		}
		h(w, r, p)
	}
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	route         string
	status, bytes int
	written       bool
}

func (rec *recorder) WriteHeader(status int) {
	if !rec.written {
		rec.status, rec.written = status, true
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(b []byte) (int, error) {
	rec.written = true
	n, err := rec.ResponseWriter.Write(b)
	rec.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// survive turns a handler's panic into an answer; the daemon goes on.
func (a *api) survive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			a.Log.Error("panic in a handler", "request_id", requestID(r), "panic", p, "stack", string(debug.Stack()))
			if rec, ok := w.(*recorder); ok && rec.written {
				panic(http.ErrAbortHandler) // too late for an answer: the client sees a broken one
			}
			a.fail(w, r, &vm.Error{Code: vm.CodeInternal, Message: "internal error; the daemon's log has the details under request " + requestID(r)})
		}()
		next.ServeHTTP(w, r)
	})
}

// guard refuses what foreign web pages send: cross-origin requests, and
// requests to a name that is not ours, which is what DNS rebinding looks like.
func (a *api) guard(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	hosts := append([]string{"localhost"}, a.Hosts...)
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ours(r.Host, hosts) {
			a.fail(w, r, &vm.Error{Code: codeHost, Message: "the request is for host " + quote(r.Host) + ", which is not a name of this daemon; use localhost or an IP address, or have the daemon know the name by -host-names"})
			return
		}
		if err := origins.Check(r); err != nil {
			a.fail(w, r, &vm.Error{Code: codeCrossOrigin, Message: "requests of web pages from other origins are refused", Err: err})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ours tells whether a Host header names this daemon. An IP address always
// does: a page that was rebound to it carries a name.
func ours(header string, hosts []string) bool {
	if header == "" {
		return true // of HTTP/1.0, which no browser speaks
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
