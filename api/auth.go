package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/julienschmidt/httprouter"

	"osx-builder/api/token"
	"osx-builder/vm"
)

// The scopes that allow a route; one of them is enough, and so is [token.Admin]. On the routes of machines, the scope
// own alone allows only those that the token's name owns.
var (
	anyScope    = token.Scopes()
	readVMs     = []token.Scope{token.Read, token.Own}
	createVMs   = []token.Scope{token.Create}
	changeVMs   = []token.Scope{token.Own}
	readHost    = []token.Scope{token.Read}
	pullImages  = []token.Scope{token.Create}
	readImage   = []token.Scope{token.Read, token.Create} // without read, only by the whole checksum
	administers = []token.Scope{token.Admin}
)

type tokenKey struct{}

// tokenOf returns the token of an authenticated request.
func tokenOf(r *http.Request) token.Token {
	t, _ := r.Context().Value(tokenKey{}).(token.Token)
	return t
}

// visible returns whose machines a request may see.
func visible(r *http.Request) vm.Owners {
	t := tokenOf(r)
	return owners(t, t.Has(token.Read))
}

// changeable returns whose machines a request may change and destroy.
func changeable(r *http.Request) vm.Owners {
	t := tokenOf(r)
	return owners(t, t.Has(token.Admin))
}

func owners(t token.Token, all bool) vm.Owners {
	if all || !t.Has(token.Own) {
		return vm.Owners{All: all}
	}
	return vm.Owners{Name: t.Name}
}

// authenticate refuses requests without a valid token. If no token is needed, every request has full rights.
func (a *api) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, ok := token.Full(), true
		if a.FindToken != nil {
			t, ok = a.FindToken(bearerToken(r.Header))
		}
		if !ok && !isPublic(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			a.fail(w, r, &vm.Error{Code: codeUnauthorized, Message: "the request has no valid token; send a token from the daemon's -token-file as the header Authorization: Bearer TOKEN"})
			return
		}
		if rec, ok := w.(*responseRecorder); ok {
			rec.token = t.Name
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tokenKey{}, t)))
	})
}

// authorize refuses requests whose token lacks the scopes of the route. A route without scopes needs [token.Admin].
func (a *api) authorize(o route, next httprouter.Handle) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) {
		if t := tokenOf(r); !t.Has(o.Scopes...) && !isPublic(r) {
			a.fail(w, r, forbidden(t, fmt.Sprintf("%s %s", o.Method, o.Path), o.Scopes))
			return
		}
		next(w, r, p)
	}
}

// forbidden is the error for a token that lacks all of the scopes that allow what.
func forbidden(t token.Token, what string, scopes []token.Scope) error {
	if !slices.Contains(scopes, token.Admin) {
		scopes = append(slices.Clone(scopes), token.Admin)
	}
	return &vm.Error{Code: codeForbidden, Message: fmt.Sprintf("%s needs the scope %s, and the token %q has only %s; send another token, or add the scope to this one in the daemon's -token-file",
		what, token.Join(scopes, "or"), t.Name, token.Join(t.Scopes, "and"))}
}

// ofVM replaces the reference to a machine in the path, which may be a name or a short id, by the machine's id. Machines
// that the token may not see do not exist; those that it may see and not change are refused, unless the request reads.
func (a *api) ofVM(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, p httprouter.Params) error {
		id, err := a.vms.Resolve(p.ByName("id"), visible(r))
		if err != nil {
			return err
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if _, err := a.vms.Resolve(id, changeable(r)); err != nil {
				return forbidden(tokenOf(r), "changing machine "+id+", which another token owns,", administers)
			}
		}
		return h(w, r, httprouter.Params{{Key: "id", Value: id}})
	}
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
	scheme, text, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(text)
}
