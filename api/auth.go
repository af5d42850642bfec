package api

import (
	"net/http"
	"strings"

	"osx-builder/vm"
)

// authenticate refuses requests without a valid token. It does nothing if no token is needed.
func (a *api) authenticate(next http.Handler) http.Handler {
	if a.Authorized == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isPublic(r) || a.Authorized(bearerToken(r.Header)) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		a.fail(w, r, &vm.Error{Code: codeUnauthorized, Message: "the request has no valid token; send a token from the daemon's -token-file as the header Authorization: Bearer TOKEN"})
	})
}

// isPublic reports whether a request needs no token. Only a load balancer's health check is public. The page's files
// are served before the token is checked.
func isPublic(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.URL.Path == "/healthz" && !r.URL.Query().Has("verbose")
}

// bearerToken returns the request's token. It returns "" if there is none or more than one.
func bearerToken(h http.Header) string {
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
