package api_test

import (
	"net/http"
	"testing"

	"osx-builder/api"
)

const token = "a-token-of-this-test"

// serveWithToken starts a server that needs a token.
func serveWithToken(t *testing.T) *testServer {
	t.Helper()
	return config{api: api.Options{Authorized: func(got string) bool { return got == token }}}.serve(t)
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
		{"GET", "/vms", []string{"Authorization", "Bearer " + token}, 200},
		{"GET", "/vms", []string{"Authorization", "bearer  " + token + " "}, 200},
		{"GET", "/healthz?verbose=1", []string{"Authorization", "Bearer " + token}, 200},
		{"GET", "/vms", []string{"Authorization", "Bearer " + token + "x"}, 401},
		{"GET", "/vms", []string{"Authorization", "Bearer " + token[:len(token)-1]}, 401},
		{"GET", "/vms", []string{"Authorization", "Bearer"}, 401},
		{"GET", "/vms", []string{"Authorization", token}, 401},
		{"GET", "/vms", []string{"Authorization", "Basic " + token}, 401},
		{"GET", "/vms?token=" + token, nil, 401},
		{"GET", "/vms?access_token=" + token, []string{"Cookie", "token=" + token}, 401},
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
	req.Header["Authorization"] = []string{"Bearer " + token, "Bearer other"}
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
