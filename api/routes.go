package api

import (
	_ "embed"
	"net/http"

	"github.com/julienschmidt/httprouter"
)

// route is a way into the API, as GET / tells it.
type route struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Does   string `json:"does"`
	handle httprouter.Handle
	head   bool // HEAD is answered too: what the answer to GET would be is known before it is sent
}

// routes lists all there are. What is not here is not there.
func (a *api) routes() []route {
	return []route{
		{"GET", "/", "tell what there is; browsers get a page", a.handle(a.index), true},
		{"GET", "/openapi.json", "describe the API for programs (OpenAPI 3.1)", a.handle(a.openapi), true},
		{"POST", "/vms", "make a machine from an image's URL and checksum", a.handle(a.create), false},
		{"GET", "/vms", "list the machines; ?phase= and ?status= choose", a.handle(a.list), true},
		{"GET", "/vms/:id", "read a machine; ?wait=5m holds the answer until it is ready or failed", a.handle(a.get), true},
		{"PATCH", "/vms/:id", "give a machine another time to live", a.handle(a.change), false},
		{"DELETE", "/vms/:id", "destroy a machine", a.handle(a.destroy), false},
		{"POST", "/vms/:id/power", "switch a machine: on, off, shutdown, reset, suspend, resume", a.handle(a.power), false},
		{"GET", "/vms/:id/console", "read what a machine wrote to its serial port; ?follow=1 goes on, ?tail=N is its end", a.handle(a.console), false},
		{"GET", "/vms/:id/screenshot", "see a machine's screen (PNG)", a.handle(a.screenshot), false},
		{"GET", "/events", "hear of changes as they happen (Server-Sent Events); ?vm= of one machine", a.handle(a.events), false},
		{"GET", "/images", "list the images that are kept", a.handle(a.images), true},
		{"DELETE", "/images/:checksum", "remove a kept image", a.handle(a.removeImage), false},
		{"GET", "/healthz", "tell whether machines can be made; ?verbose=1 tells more", a.handle(a.health), true},
		{"GET", "/metrics", "tell numbers (Prometheus)", a.metrics(), true},
	}
}

// index is GET / for all but browsers, which get the page.
func (a *api) index(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	return encode(w, http.StatusOK, struct {
		Service   string  `json:"service"`
		Version   string  `json:"version"`
		Endpoints []route `json:"endpoints"`
	}{"osx-builder", a.Version, a.routes()})
}

// description is kept by hand. The tests hold it to what the API does.
//
//go:embed openapi.json
var description []byte

// openapi is GET /openapi.json.
func (a *api) openapi(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // another daemon may be there tomorrow
	_, _ = w.Write(description)        // a client that has left is no failure of ours
	return nil
}
