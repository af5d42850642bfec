package api

import (
	"net/http"
	"strings"

	"osx-builder/vm"
)

// authenticate lets those requests in that carry a token, where tokens are
// asked for.
func (a *api) authenticate(next http.Handler) http.Handler {
	if a.Authorized == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open(r) || a.Authorized(bearer(r.Header)) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		a.fail(w, r, &vm.Error{Code: codeUnauthorized, Message: "the request has no token of this daemon's; send one of those in its -token-file as the header Authorization: Bearer TOKEN"})
	})
}

// open tells whether a request needs no token: a load balancer's question
// whether the daemon is well. The page's files are served before tokens are
// asked for.
func open(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.URL.Path == "/healthz" && !r.URL.Query().Has("verbose")
}

// bearer returns the request's token, "" where it has none, or several.
func bearer(h http.Header) string {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
