package api_test

import (
	"net/http"
	"strings"
	"testing"

	"osx-builder/api"
	"osx-builder/api/token"
)

// secret is a token without a name.
const secret = "a-token-of-this-test"

// findToken knows secret, and tokens such as "ci=read,own" that are their own names and scopes.
func findToken(text string) (t token.Token, ok bool) {
	if text == secret {
		return token.Full(), true
	}
	name, scopes, ok := strings.Cut(text, "=")
	if !ok {
		return t, false
	}
	t.Name = name
	for s := range strings.SplitSeq(scopes, ",") {
		t.Scopes = append(t.Scopes, token.Scope(s))
	}
	return t, true
}

// serveWithToken starts a server that needs a token.
func serveWithToken(t *testing.T) *testServer {
	t.Helper()
	return config{api: api.Options{FindToken: findToken}}.serve(t)
}

// Without a token every path returns 401, whether it exists or not, except a load balancer's health check.
func TestTokens(t *testing.T) {
	s := serveWithToken(t)
	for _, c := range []struct {
		method, path string
		headers      []string
		want         int
	}{
		{"GET", "/vms", nil, 401},
		{"POST", "/vms", nil, 401},
		{"DELETE", "/vms/282ee68a-2e4d-4bd7-9c0e-7f37e12fc489", nil, 401},
		{"GET", "/images", nil, 401},
		{"GET", "/metrics", nil, 401},
		{"GET", "/nothing", nil, 401},
		{"PUT", "/vms", nil, 401},
		{"OPTIONS", "/vms", nil, 401},
		{"GET", "/", nil, 401},
		{"POST", "/healthz", nil, 401},
		{"GET", "/healthz?verbose=1", nil, 401},
		{"GET", "/healthz?verbose", nil, 401},
		{"GET", "/healthz/", nil, 401},
		{"GET", "//healthz", nil, 401},
		{"GET", "/healthz", nil, 200},
		{"HEAD", "/healthz", nil, 200},
		{"GET", "/vms", []string{"Authorization", "Bearer " + secret}, 200},
		{"GET", "/vms", []string{"Authorization", "bearer  " + secret + " "}, 200},
		{"GET", "/healthz?verbose=1", []string{"Authorization", "Bearer " + secret}, 200},
		{"GET", "/vms", []string{"Authorization", "Bearer " + secret + "x"}, 401},
		{"GET", "/vms", []string{"Authorization", "Bearer " + secret[:len(secret)-1]}, 401},
		{"GET", "/vms", []string{"Authorization", "Bearer"}, 401},
		{"GET", "/vms", []string{"Authorization", secret}, 401},
		{"GET", "/vms", []string{"Authorization", "Basic " + secret}, 401},
		{"GET", "/vms?token=" + secret, nil, 401},
		{"GET", "/vms?access_token=" + secret, []string{"Cookie", "token=" + secret}, 401},
		{"GET", "/vms", []string{"X-Original-Url", "/healthz"}, 401},
		{"POST", "/vms", []string{"X-Http-Method-Override", "GET", "Content-Length", "0"}, 401},
	} {
		a := s.do(c.method, c.path, "", c.headers...)
		if a.status != c.want || (c.want == 401) != (a.header.Get("WWW-Authenticate") == "Bearer") {
			t.Errorf("%s %s %q: got %d, WWW-Authenticate %q, want %d", c.method, c.path, c.headers, a.status, a.header.Get("WWW-Authenticate"), c.want)
		}
		if c.want == 401 && a.Code != "unauthorized" {
			t.Errorf("%s %s: got code %s, want unauthorized", c.method, c.path, a.Code)
		}
	}
}

// A request with two tokens is refused: a proxy may have checked the other one.
func TestTwoTokens(t *testing.T) {
	s := serveWithToken(t)
	req, err := http.NewRequest("GET", s.URL+"/vms", nil)
	must(t, err)
	req.Header["Authorization"] = []string{"Bearer " + secret, "Bearer other"}
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	must(t, res.Body.Close())
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", res.StatusCode)
	}
}

// A browser gets the page without a token.
func TestPageNeedsNoToken(t *testing.T) {
	s := serveWithToken(t)
	for _, path := range []string{"/", "/page/app.js"} {
		if status, _ := s.text(path, "Accept", "text/html,*/*"); status == http.StatusUnauthorized {
			t.Errorf("%s: got %d, want the page without a token", path, status)
		}
	}
	for _, path := range []string{"/page", "/pages/x", "/page/../vms", "/page/%2e%2e/vms"} {
		if status, body := s.text(path, "Accept", "text/html"); status == http.StatusOK {
			t.Errorf("%s: got %d %s, want 401", path, status, body)
		}
	}
}
