package api

import (
	"embed"
	"net/http"
	"strings"

	"github.com/julienschmidt/httprouter"

	"osx-builder/api/token"
)

// route is an endpoint of the API, as GET / lists it.
type route struct {
	Method string        `json:"method"`
	Path   string        `json:"path"`
	Does   string        `json:"does"`
	Scopes []token.Scope `json:"scopes"` // which allow it; see auth.go
	query  []string      // the query parameters that it takes
	handle httprouter.Handle
	head   bool // whether HEAD is answered too
}

// routes returns all routes. [New] registers these and no others.
func (a *api) routes() []route {
	return []route{
		{"GET", "/", "list the endpoints; browsers get a page", anyScope, nil, a.handle(a.index), true},
		{"GET", "/openapi.json", "describe the API for programs (OpenAPI 3.1)", anyScope, nil, a.handle(a.openapi), true},
		{"POST", "/vms", "create a machine from an image's URL and checksum", createVMs, nil, a.handle(a.create), false},
		{"GET", "/vms", "list the machines; ?phase=, ?status=, ?owner= and ?label=job=1 filter", readVMs, []string{"phase", "status", "owner", "label"}, a.handle(a.list), true},
		{"DELETE", "/vms", "destroy all machines with ?label=job=1", changeVMs, []string{"label"}, a.handle(a.destroyLabelled), false},
		{"GET", "/vms/:id", "read a machine; ?wait=5m delays the answer until it is ready or failed", readVMs, []string{"wait"}, a.handle(a.ofVM(a.get)), true},
		{"PATCH", "/vms/:id", "change when a machine expires", changeVMs, nil, a.handle(a.ofVM(a.change)), false},
		{"DELETE", "/vms/:id", "destroy a machine", changeVMs, nil, a.handle(a.ofVM(a.destroy)), false},
		{"POST", "/vms/:id/power", "change a machine's power state: on, off, shutdown, reset, suspend, resume", changeVMs, nil, a.handle(a.ofVM(a.power)), false},
		{
			"GET", "/vms/:id/console", "read the output of a machine's serial port; ?follow=1 streams it, ?tail=N returns the last N bytes", readVMs,
			[]string{"follow", "tail"},
			a.handle(a.ofVM(a.console)), false,
		},
		{"GET", "/vms/:id/screenshot", "take a screenshot of a machine (PNG)", readVMs, nil, a.handle(a.ofVM(a.screenshot)), false},
		{"GET", "/events", "stream changes as they happen (Server-Sent Events); ?vm= selects one machine", readVMs, []string{"vm"}, a.handle(a.events), false},
		{"GET", "/images", "list the cached images", readHost, nil, a.handle(a.images), true},
		{"POST", "/images", "get an image before machines need it; ?wait=5m delays the answer until it is ready or failed", pullImages, []string{"wait"}, a.handle(a.pullImage), false},
		{"GET", "/images/:checksum", "read an image; ?wait=5m delays the answer until it is ready or failed", readImage, []string{"wait"}, a.handle(a.image), true},
		{"PATCH", "/images/:checksum", "pin an image, which is then not removed to make room", administers, nil, a.handle(a.changeImage), false},
		{"DELETE", "/images/:checksum", "remove a cached image, or cancel its pull", administers, nil, a.handle(a.removeImage), false},
		{"GET", "/templates", "list the templates that machines start from if their request has start: memory", readHost, nil, a.handle(a.templates), true},
		{"DELETE", "/templates/:key", "remove a template", administers, nil, a.handle(a.removeTemplate), false},
		{"GET", "/healthz", "report whether machines can be created; ?verbose=1 adds limits and networks", anyScope, []string{"verbose"}, a.handle(a.health), true},
		{"GET", "/metrics", "return metrics for Prometheus", readHost, []string{"name[]"}, a.metrics(), true},
	}
}

// redirectSlash redirects a path with a slash at the end to the same path without it, if that is the path of a route.
// Status 308 keeps the method and the body.
func (a *api) redirectSlash(router *httprouter.Router, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimRight(r.URL.EscapedPath(), "/")
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			h, _, _ := router.Lookup(method, path)
			if h == nil || path == r.URL.EscapedPath() || path == "" {
				continue
			}
			if r.URL.RawQuery != "" {
				path += "?" + r.URL.RawQuery
			}
			w.Header().Set("Location", path)
			w.WriteHeader(http.StatusPermanentRedirect)
			return
		}
		next.ServeHTTP(w, r)
	})
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

// readmes are the documents for users that the page links to.
//
//go:embed README.md client/README.md
var readmes embed.FS

// documents returns the documents that the page links to, by file name.
func documents() map[string][]byte {
	all := map[string][]byte{"openapi.json": description}
	for name, path := range map[string]string{"api.md": "README.md", "client.md": "client/README.md"} {
		text, err := readmes.ReadFile(path)
		if err != nil {
			panic(err) // a build with the files rules it out
		}
		all[name] = text
	}
	return all
}

// openapi is GET /openapi.json.
func (a *api) openapi(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // a later daemon may serve another version
	_, _ = w.Write(description)        // a client that has disconnected is not an error
	return nil
}
