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
// whether the daemon is well, and a browser's for the page, which is the same
// for all and asks for the token itself.
func open(r *http.Request) bool {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return false
	case r.URL.Path == "/healthz":
		return !r.URL.Query().Has("verbose")
	default:
		html := strings.Contains(r.Header.Get("Accept"), "text/html")
		return (r.URL.Path == "/" && html) || strings.HasPrefix(r.URL.Path, "/page/")
	}
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
