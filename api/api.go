// Package api is the HTTP face of vm.Manager: it decodes requests, makes one
// call, and encodes the answer. It is the only package that knows HTTP
// statuses.
package api

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/julienschmidt/httprouter"

	"osx-builder/api/page"
	"osx-builder/vm"
)

// The bounds of requests.
const (
	maxBody = 1 << 20          // bytes
	maxWait = 10 * time.Minute // of GET /vms/:id?wait=
	maxKey  = 255              // characters of an Idempotency-Key

	// answerTime is what an answer may take to write once it is known.
	answerTime = 30 * time.Second
)

// Options is what New needs beside the Manager.
type Options struct {
	Log     *slog.Logger // one line a request
	Version string       // shown by GET /healthz
	Hosts   []string     // names by which clients may address the daemon, beside localhost, this host's name and IP addresses
	Metrics *Metrics     // what GET /metrics tells, of this handler alone; nil for a new one

	// Authorized tells whether a token lets its bearer in, in a time that
	// says nothing of it. Nil lets everybody in.
	Authorized func(token string) bool
}

// api has the handlers.
type api struct {
	vms *vm.Manager
	Options
}

// New returns the handler of all routes.
func New(vms *vm.Manager, o Options) http.Handler {
	a := &api{vms: vms, Options: o}
	if a.Metrics == nil {
		a.Metrics = NewMetrics(o.Version)
	}
	a.Metrics.registry.MustRegister(gauges{vms})
	r := httprouter.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	for _, way := range a.routes() {
		h := noted(way.Path, way.handle)
		if way.Method == http.MethodGet || way.Method == http.MethodDelete {
			h = bare(h)
		}
		r.Handle(way.Method, way.Path, h)
		if way.head {
			r.Handle(http.MethodHead, way.Path, h)
		}
	}
	r.NotFound = http.HandlerFunc(a.notFound)
	r.MethodNotAllowed = http.HandlerFunc(a.methodNotAllowed)
	return a.log(a.survive(a.guard(page.Before(a.authenticate(r)))))
}

// create is POST /vms.
func (a *api) create(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	v, err := a.accept(w, r)
	if err != nil {
		a.Metrics.refused(err)
		return err
	}
	w.Header().Set("Location", "/vms/"+v.ID)
	return encode(w, http.StatusAccepted, v)
}

func (a *api) accept(w http.ResponseWriter, r *http.Request) (v vm.VM, err error) {
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return v, err
	}
	var q vm.Request
	if err := decode(w, r, &q); err != nil {
		return v, err
	}
	return a.vms.Create(r.Context(), q, key)
}

// get is GET /vms/:id.
func (a *api) get(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	wait, err := waitTime(r)
	if err != nil {
		return err
	}
	if wait > 0 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + answerTime))
	}
	v, err := a.vms.Wait(r.Context(), p.ByName("id"), wait)
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, v)
}

// list is GET /vms.
func (a *api) list(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	f, err := filter(r)
	if err != nil {
		return err
	}
	vms, err := a.vms.List(r.Context(), f)
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, struct {
		VMs []vm.VM `json:"vms"`
	}{vms})
}

// change is PATCH /vms/:id.
func (a *api) change(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	var c vm.Change
	if err := decode(w, r, &c); err != nil {
		return err
	}
	v, err := a.vms.Change(r.Context(), p.ByName("id"), c)
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, v)
}

// destroy is DELETE /vms/:id.
func (a *api) destroy(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	if err := a.vms.Destroy(r.Context(), p.ByName("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// health is GET /healthz.
func (a *api) health(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	more, err := flag(r, "verbose")
	if err != nil {
		return err
	}
	body := struct {
		Status  string `json:"status"` // "ok", or "unavailable" where no machine can be made
		Version string `json:"version"`
		Go      string `json:"go"`
		vm.Health
		Limits   *vm.Capacity                       `json:"limits,omitempty"`
		Networks map[vm.NetworkType]vm.NetworkState `json:"networks,omitempty"`
	}{Status: "ok", Version: a.Version, Go: runtime.Version(), Health: a.vms.Health(r.Context())}
	if more {
		limits := a.vms.Capacity()
		body.Limits, body.Networks = &limits, a.vms.Networks()
	}
	if body.Error != nil {
		body.Status = "unavailable"
		return encode(w, http.StatusServiceUnavailable, body)
	}
	return encode(w, http.StatusOK, body)
}

// metrics is GET /metrics.
func (a *api) metrics() httprouter.Handle {
	h := a.Metrics.handler()
	return func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) { h.ServeHTTP(w, r) }
}

func (a *api) notFound(w http.ResponseWriter, r *http.Request) {
	a.fail(w, r, &vm.Error{Code: codePath, Message: "there is nothing at " + quote(r.URL.Path) + "; the machines are at /vms"})
}

func (a *api) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	a.fail(w, r, &vm.Error{Code: codeMethod, Message: r.Method + " is not allowed at " + quote(r.URL.Path) + "; allowed are " + w.Header().Get("Allow")})
}
