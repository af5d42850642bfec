package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/tailscale/hujson"

	"osx-builder/api"
	"osx-builder/vm"
)

// contract returns the OpenAPI document and a router that finds a request's operation in it.
var contract = sync.OnceValues(func() (*openapi3.T, routers.Router) {
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.json")
	if err != nil {
		panic(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		panic(err)
	}
	doc.Servers = nil // tests serve elsewhere
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		panic(err)
	}
	return doc, router
})

// checkContract compares each request of the tests, and next's answer to it, with the OpenAPI document.
func checkContract(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			next.ServeHTTP(w, r) // the client has disconnected
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		copied := r.Clone(context.WithoutCancel(r.Context()))
		rec := &answerRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		if err := check(copied, body, rec); err != nil {
			t.Errorf("%s %s, answered %d, does not match openapi.json: %v", r.Method, r.URL, rec.status, err)
		}
	})
}

// answerRecorder records the answer.
type answerRecorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (rec *answerRecorder) WriteHeader(status int) {
	rec.status = status
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *answerRecorder) Write(b []byte) (int, error) {
	rec.body.Write(b)
	return rec.ResponseWriter.Write(b)
}

func (rec *answerRecorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// check judges one exchange. What is not described must be answered with 404
// or 405, or be refused before that is looked at; a request that is described
// otherwise must be refused.
func check(r *http.Request, body []byte, rec *answerRecorder) error {
	_, router := contract()
	route, params, err := router.FindRoute(r)
	if strings.HasPrefix(r.URL.Path, "/page/") {
		return nil // the page's files are not part of the API
	}
	if err != nil {
		if slices.Contains([]int{308, 401, 403, 404, 405}, rec.status) {
			return nil
		}
		return err
	}
	if rec.status == http.StatusNotFound && strings.Contains(rec.body.String(), `"not-found"`) {
		return nil // an escaped slash in a parameter, which is another path for the daemon
	}
	request := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true},
	}
	if err := checkRequest(request, body); err != nil && rec.status < 400 {
		return fmt.Errorf("the request: %w", err)
	}
	kind := rec.Header().Get("Content-Type")
	request.Options.ExcludeResponseBody = kind != "application/json" || r.Method == http.MethodHead
	response := &openapi3filter.ResponseValidationInput{RequestValidationInput: request, Status: rec.status, Header: rec.Header(), Options: request.Options}
	response.SetBodyBytes(rec.body.Bytes())
	if err := openapi3filter.ValidateResponse(r.Context(), response); err != nil {
		return fmt.Errorf("the answer: %w: %s", err, rec.body.String())
	}
	described := route.Operation.Responses.Status(rec.status).Value.Content
	if rec.body.Len() > 0 && r.Method != http.MethodHead && described.Get(kind) == nil {
		return fmt.Errorf("the answer's type is %q", kind)
	}
	return nil
}

// checkRequest compares a request with the OpenAPI document after converting its body to strict JSON.
func checkRequest(in *openapi3filter.RequestValidationInput, body []byte) error {
	if plain, err := hujson.Standardize(body); err == nil {
		body = plain
	}
	if t := in.Request.Header.Get("Content-Type"); t == "" || t == "application/x-www-form-urlencoded" {
		in.Request.Header.Set("Content-Type", "application/json")
	}
	in.Request.Body = io.NopCloser(bytes.NewReader(body))
	return openapi3filter.ValidateRequest(context.Background(), in)
}

// The daemon serves its OpenAPI document.
func TestOpenAPI(t *testing.T) {
	s := serve(t)
	want, err := os.ReadFile("openapi.json")
	must(t, err)
	a := s.do("GET", "/openapi.json", "")
	if a.status != http.StatusOK || a.body != string(want) {
		t.Errorf("got %d and %d bytes, want the %d of openapi.json", a.status, len(a.body), len(want))
	}
	if doc, _ := contract(); doc.OpenAPI != "3.1.0" {
		t.Errorf("got version %s, want 3.1.0", doc.OpenAPI)
	}
}

// GET / lists every route, the OpenAPI document describes each of them, and everything that it describes exists.
func TestEveryRouteIsDescribed(t *testing.T) {
	s := serve(t)
	var index struct {
		Service, Version string
		Endpoints        []struct{ Method, Path, Does string }
	}
	a := s.do("GET", "/", "")
	must(t, json.Unmarshal([]byte(a.body), &index))
	if index.Service != "osx-builder" || index.Version != "test" || len(index.Endpoints) < 15 {
		t.Errorf("got %s", a.body)
	}
	doc, _ := contract()
	listed := map[string]bool{}
	for _, e := range index.Endpoints {
		path := regexp.MustCompile(`:(\w+)`).ReplaceAllString(e.Path, "{$1}")
		listed[e.Method+" "+path] = true
		if item := doc.Paths.Find(path); item == nil || item.GetOperation(e.Method) == nil {
			t.Errorf("%s %s is not described", e.Method, e.Path)
		}
		if e.Does == "" {
			t.Errorf("GET / does not say what %s %s does", e.Method, e.Path)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			get := strings.Replace(method, http.MethodHead, http.MethodGet, 1)
			if !listed[get+" "+path] {
				t.Errorf("%s %s is described, and GET / does not list it", method, path)
			}
			res, body := s.raw(method, strings.NewReplacer("{id}", "x", "{checksum}", "x").Replace(path)+"?x=1")
			if res.StatusCode == http.StatusMethodNotAllowed || strings.Contains(body, `"code": "not-found"`) {
				t.Errorf("%s %s is described, and answered %d %s", method, path, res.StatusCode, body)
			}
		}
	}
}

// raw sends a request whose answer need not be JSON.
func (s *testServer) raw(method, path string) (*http.Response, string) {
	s.t.Helper()
	return s.rawBody(method, path, "")
}

// rawBody is raw with a body. It does not follow redirects.
func (s *testServer) rawBody(method, path, text string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.URL+path, strings.NewReader(text))
	must(s.t, err)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	must(s.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(s.t, err)
	return res, string(body)
}

// The OpenAPI document lists every code, and under each status only codes that have this status.
func TestEveryCodeIsDescribed(t *testing.T) {
	doc, _ := contract()
	var listed []vm.Code
	for _, c := range doc.Components.Schemas["Code"].Value.Enum {
		listed = append(listed, vm.Code(c.(string)))
	}
	statuses := api.Statuses()
	for _, code := range vm.Codes() {
		if !slices.Contains(listed, code) {
			t.Errorf("code %s is not described", code)
		}
	}
	for code := range statuses {
		if !slices.Contains(listed, code) {
			t.Errorf("code %s is not described", code)
		}
	}
	for _, code := range listed {
		if statuses[code] == 0 {
			t.Errorf("code %s is described, and has no status", code)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status, res := range op.Responses.Map() {
				for _, m := range regexp.MustCompile("`([a-z]+(?:-[a-z]+)+|busy|unauthorized)`").FindAllStringSubmatch(after(*res.Value.Description, "Codes: "), -1) {
					if got := fmt.Sprint(statuses[vm.Code(m[1])]); got != status {
						t.Errorf("%s %s: code %s is described under %s, and its status is %s", method, path, m[1], status, got)
					}
				}
			}
		}
	}
}

func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	return rest
}
