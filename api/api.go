// Package api serves a [vm.Manager] over HTTP. Each handler decodes a request, makes one call, and encodes the answer.
// No other package knows HTTP statuses.
package api

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/julienschmidt/httprouter"

	"osx-builder/api/page"
	"osx-builder/api/token"
	"osx-builder/vm"
)

// The limits of requests.
const (
	maxBody = 1 << 20          // bytes
	maxWait = 10 * time.Minute // for GET /vms/:id?wait=
	maxKey  = 255              // characters in an Idempotency-Key

	// writeTimeout is the longest time that writing an answer may take once it is known.
	writeTimeout = 30 * time.Second
)

// Options configures the handler that [New] returns.
type Options struct {
	Log     *slog.Logger // gets one line per request
	Version string       // shown by GET /healthz
	Hosts   []string     // host names that requests may use, besides localhost, this host's name and IP addresses
	Metrics *Metrics     // served by GET /metrics; each handler needs its own; nil for new ones

	// FindToken returns what is known of a token, and whether it is valid. The time it takes must not depend on the
	// token. If it is nil, no token is needed.
	FindToken func(text string) (t token.Token, ok bool)
}

// api holds the handlers.
type api struct {
	vms *vm.Manager
	Options
}

// New returns a handler that serves all routes.
func New(vms *vm.Manager, o Options) http.Handler {
	a := &api{vms: vms, Options: o}
	if a.Metrics == nil {
		a.Metrics = NewMetrics(o.Version)
	}
	a.Metrics.registry.MustRegister(gauges{vms})
	r := httprouter.New()
	r.RedirectTrailingSlash, r.RedirectFixedPath = false, false
	for _, route := range a.routes() {
		h := withRoute(route.Path, a.authorize(route, a.checkQuery(route)))
		if route.Method == http.MethodGet || route.Method == http.MethodDelete {
			h = drainBody(h)
		}
		r.Handle(route.Method, route.Path, h)
		if route.head {
			r.Handle(http.MethodHead, route.Path, h)
		}
	}
	r.NotFound = a.redirectSlash(r, http.HandlerFunc(a.notFound))
	r.MethodNotAllowed = http.HandlerFunc(a.methodNotAllowed)
	return a.logRequests(a.recoverPanics(a.checkOrigin(page.Handler(a.authenticate(r), documents()))))
}

// create is POST /vms.
func (a *api) create(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	v, err := a.createVM(w, r)
	if err != nil {
		a.Metrics.creationRefused(err)
		return err
	}
	w.Header().Set("Location", "/vms/"+v.ID)
	return encode(w, http.StatusAccepted, v)
}

// createVM decodes the request and creates the machine.
func (a *api) createVM(w http.ResponseWriter, r *http.Request) (v vm.VM, err error) {
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return v, err
	}
	var q vm.Request
	if q.Invalid, err = decode(w, r, &q); err != nil {
		return v, err
	}
	q.Owner = tokenOf(r).Name
	return a.vms.Create(r.Context(), q, key)
}

// get is GET /vms/:id.
func (a *api) get(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
	wait, err := waitTime(r)
	if err != nil {
		return err
	}
	a.delay(w, wait)
	v, err := a.vms.Wait(r.Context(), p.ByName("id"), wait)
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, v)
}

// delay prepares for an answer that takes up to wait longer than others.
func (a *api) delay(w http.ResponseWriter, wait time.Duration) {
	if wait > 0 {
		markWaiting(w)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + writeTimeout))
	}
}

// list is GET /vms.
func (a *api) list(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	f, err := filter(r)
	if err != nil {
		return err
	}
	vms, err := a.vms.List(r.Context(), f, visible(r))
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, struct {
		VMs []vm.VM `json:"vms"`
	}{vms})
}

// change is PATCH /vms/:id.
func (a *api) change(w http.ResponseWriter, r *http.Request, p httprouter.Params) (err error) {
	var c vm.Change
	if c.Invalid, err = decode(w, r, &c); err != nil {
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

// destroyLabelled is DELETE /vms.
func (a *api) destroyLabelled(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	wanted, err := labels(r)
	if err != nil {
		return err
	}
	ids, err := a.vms.DestroyLabelled(r.Context(), wanted, changeable(r))
	if err != nil {
		return err
	}
	return encode(w, http.StatusOK, struct {
		IDs []string `json:"ids"`
	}{append([]string{}, ids...)})
}

// health is GET /healthz.
func (a *api) health(w http.ResponseWriter, r *http.Request, _ httprouter.Params) error {
	verbose, err := flag(r, "verbose")
	if err != nil {
		return err
	}
	body := struct {
		Status  string `json:"status"` // "ok", or "unavailable" if no machine can be created
		Version string `json:"version"`
		Go      string `json:"go"`
		vm.Health
		Limits   *vm.Capacity                       `json:"limits,omitempty"`
		Networks map[vm.NetworkType]vm.NetworkState `json:"networks,omitempty"`
	}{Status: "ok", Version: a.Version, Go: runtime.Version(), Health: a.vms.Health(r.Context())}
	if verbose {
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
	a.fail(w, r, &vm.Error{Code: codePath, Message: "there is no endpoint at " + quote(r.URL.Path) + "; GET / lists all endpoints"})
}

func (a *api) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	a.fail(w, r, &vm.Error{Code: codeMethod, Message: quote(r.Method) + " is not allowed at " + quote(r.URL.Path) + "; allowed: " + w.Header().Get("Allow")})
}
