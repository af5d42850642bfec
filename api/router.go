package api

import (
	"io"
	"net/http"

	"github.com/julienschmidt/httprouter"
)

// router notes the route that a request takes.
type router struct{ *httprouter.Router }

func (r router) GET(path string, h httprouter.Handle)    { r.Router.GET(path, noted(path, bare(h))) }
func (r router) HEAD(path string, h httprouter.Handle)   { r.Router.HEAD(path, noted(path, bare(h))) }
func (r router) POST(path string, h httprouter.Handle)   { r.Router.POST(path, noted(path, h)) }
func (r router) PATCH(path string, h httprouter.Handle)  { r.Router.PATCH(path, noted(path, h)) }
func (r router) DELETE(path string, h httprouter.Handle) { r.Router.DELETE(path, noted(path, bare(h))) }

// bare reads the body, if there is one, of a request that needs none: before
// its end the server does not look whether the client has left, and an answer
// that is waited for would wait for nobody.
func bare(h httprouter.Handle) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if r.ContentLength != 0 {
			_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)) // whatever it is
		}
		h(w, r, p)
	}
}

func noted(path string, h httprouter.Handle) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if rec, ok := w.(*recorder); ok {
			rec.route = path
		}
		h(w, r, p)
	}
}
