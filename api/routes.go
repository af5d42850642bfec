package api

import (
	_ "embed"
	"net/http"

	"github.com/julienschmidt/httprouter"
)

// route is an endpoint of the API, as GET / lists it.
type route struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Does   string `json:"does"`
	handle httprouter.Handle
	head   bool // whether HEAD is answered too
}

// routes returns all routes. [New] registers these and no others.
func (a *api) routes() []route {
	return []route{
		{"GET", "/", "list the endpoints; browsers get a page", a.handle(a.index), true},
		{"GET", "/openapi.json", "describe the API for programs (OpenAPI 3.1)", a.handle(a.openapi), true},
		{"POST", "/vms", "create a machine from an image's URL and checksum", a.handle(a.create), false},
		{"GET", "/vms", "list the machines; ?phase= and ?status= filter", a.handle(a.list), true},
		{"GET", "/vms/:id", "read a machine; ?wait=5m delays the answer until it is ready or failed", a.handle(a.get), true},
		{"PATCH", "/vms/:id", "change when a machine expires", a.handle(a.change), false},
		{"DELETE", "/vms/:id", "destroy a machine", a.handle(a.destroy), false},
		{"POST", "/vms/:id/power", "change a machine's power state: on, off, shutdown, reset, suspend, resume", a.handle(a.power), false},
		{"GET", "/vms/:id/console", "read the output of a machine's serial port; ?follow=1 streams it, ?tail=N returns the last N bytes", a.handle(a.console), false},
		{"GET", "/vms/:id/screenshot", "take a screenshot of a machine (PNG)", a.handle(a.screenshot), false},
		{"GET", "/events", "stream changes as they happen (Server-Sent Events); ?vm= selects one machine", a.handle(a.events), false},
		{"GET", "/images", "list the cached images", a.handle(a.images), true},
		{"DELETE", "/images/:checksum", "remove a cached image", a.handle(a.removeImage), false},
		{"GET", "/healthz", "report whether machines can be created; ?verbose=1 adds limits and networks", a.handle(a.health), true},
		{"GET", "/metrics", "return metrics for Prometheus", a.metrics(), true},
	}
}

// index is GET / for every client but browsers, which get the page.
func (a *api) index(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	return encode(w, http.StatusOK, struct {
		Service   string  `json:"service"`
		Version   string  `json:"version"`
		Endpoints []route `json:"endpoints"`
	}{"osx-builder", a.Version, a.routes()})
}

// description is the OpenAPI document. It is written by hand; the tests compare it with what the API does.
//
//go:embed openapi.json
var description []byte

// openapi is GET /openapi.json.
func (a *api) openapi(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // a later daemon may serve another version
	_, _ = w.Write(description)        // a client that has disconnected is not an error
	return nil
}
