package page_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"osx-builder/api/page"
	"osx-builder/vm"
)

// next is the handler behind the page. Its status shows that a request reached it.
var next = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })

// documents are examples of what the page links to.
var documents = map[string][]byte{"api.md": []byte("# API"), "client.md": []byte("# Client"), "openapi.json": []byte("{}")}

func serve(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(page.Handler(next, documents))
	t.Cleanup(s.Close)
	return s
}

// do sends a request. The headers are pairs of name and value.
func do(t *testing.T, method, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestOnlyBrowsersGetThePage(t *testing.T) {
	s := serve(t)
	for accept, want := range map[string]bool{
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": true, // browsers
		"text/html":                             true,
		"TEXT/HTML; charset=utf-8":              true,
		"application/json, text/html":           true,
		"application/json;q=0.5, text/html":     true,
		"*/*":                                   false, // curl
		"":                                      false,
		"application/json":                      false,
		"application/json, text/html;q=0.5":     false,
		"text/html;q=0":                         false,
		"text/html;q=x":                         false,
		"text/*":                                false,
		"text/plain":                            false,
		"application/json, text/plain, */*;q=1": false,
	} {
		res, body := do(t, "GET", s.URL+"/", "Accept", accept)
		if got := res.StatusCode == 200 && strings.HasPrefix(body, "<!doctype html>"); got != want {
			t.Errorf("Accept %q: got the page: %v (%d), want %v", accept, got, res.StatusCode, want)
		}
		if got := res.Header.Get("Vary"); got != "Accept" {
			t.Errorf("Accept %q: got Vary %q, want Accept", accept, got)
		}
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/"},
		{"GET", "/vms"},
		{"GET", "/page"},
		{"GET", "/page/"},
		{"GET", "/page/none.js"},
		{"GET", "/page/index.html"},
		{"GET", "/page/../page.go"},
		{"GET", "/page/static/app.js"},
		{"DELETE", "/page/app.js"},
		{"GET", "/index.html"},
	} {
		if res, _ := do(t, c.method, s.URL+c.path, "Accept", "text/html"); res.StatusCode != http.StatusTeapot {
			t.Errorf("%s %s: got %d, want the next handler's answer", c.method, c.path, res.StatusCode)
		}
	}
	if res, body := do(t, "HEAD", s.URL+"/", "Accept", "text/html"); res.StatusCode != 200 || body != "" || res.ContentLength < 100 {
		t.Errorf("HEAD /: got %d, %d bytes announced, body %q", res.StatusCode, res.ContentLength, body)
	}
}

// Each file has its content type, the security policy, and an ETag for revalidation.
func TestFiles(t *testing.T) {
	s := serve(t)
	types := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".html": "text/html; charset=utf-8", ".md": "text/plain; charset=utf-8", ".json": "application/json"}
	for _, file := range append(files(t), slices.Collect(maps.Keys(documents))...) {
		path := "/page/" + file
		if file == "index.html" {
			path = "/"
		}
		res, _ := do(t, "GET", s.URL+path, "Accept", "text/html")
		h := res.Header
		if got := h.Get("Content-Type"); res.StatusCode != 200 || got != types[filepath.Ext(file)] {
			t.Errorf("%s: got %d, type %q, want %q", path, res.StatusCode, got, types[filepath.Ext(file)])
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: got headers %v", path, h)
		}
		for _, part := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob:", "connect-src 'self'",
			"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
		} {
			if policy := h.Get("Content-Security-Policy") + ";"; !strings.Contains(policy, part+";") || strings.Contains(policy, "unsafe") {
				t.Errorf("%s: got policy %q, want %s and nothing unsafe", path, policy, part)
			}
		}
		res, body := do(t, "GET", s.URL+path, "Accept", "text/html", "If-None-Match", h.Get("ETag"))
		if h.Get("ETag") == "" || res.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("%s with its ETag %s: got %d, want 304", path, h.Get("ETag"), res.StatusCode)
		}
		if res, _ := do(t, "GET", s.URL+path, "Accept", "text/html", "If-None-Match", `"of-another-build"`); res.StatusCode != 200 {
			t.Errorf("%s with another build's ETag: got %d, want 200", path, res.StatusCode)
		}
	}
}

// Every file that the page refers to exists and belongs to the page.
func TestReferences(t *testing.T) {
	existing := make(map[string]bool)
	for _, file := range files(t) {
		existing[file] = true
	}
	for name := range documents {
		existing[name] = true
	}
	index := read(t, "index.html")
	for _, file := range files(t) {
		if filepath.Ext(file) == ".js" && file != "app.js" && !strings.Contains(index, `<link rel="modulepreload" href="/page/`+file+`">`) {
			t.Errorf("index.html does not preload %s, so that the browser finds it late", file)
		}
	}
	reference := regexp.MustCompile(`(?:src|href)="([^"#][^"]*)"|from '([^']*)'`)
	for _, file := range files(t) {
		for _, m := range reference.FindAllStringSubmatch(read(t, file), -1) {
			name, absolute := strings.CutPrefix(m[1], "/page/")
			if m[2] != "" {
				name, absolute = strings.CutPrefix(m[2], "./")
			}
			if !absolute || !existing[name] {
				t.Errorf("%s refers to %s%s, which is not a file of the page", file, m[1], m[2])
			}
		}
	}
}

// The HTML contains no inline script or style, which the policy would block. No script converts text to HTML or code.
func TestNothingInline(t *testing.T) {
	html := regexp.MustCompile(`(?i)<script(?: [^>]*)?>[^<]|<style|\sstyle=|\son\w+=|javascript:`)
	if m := html.FindString(read(t, "index.html")); m != "" {
		t.Errorf("index.html has %q", m)
	}
	script := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\('|DOMParser|createContextualFragment|https?://`)
	for _, file := range files(t) {
		if m := script.FindString(read(t, file)); filepath.Ext(file) == ".js" && m != "" {
			t.Errorf("%s has %q", file, m)
		}
	}
}

// The form shows the API's defaults next to its fields, and not in them, where they would look like values.
func TestDefaults(t *testing.T) {
	html := read(t, "index.html")
	form := html[strings.Index(html, `id="create-dialog"`):]
	for name, want := range map[string]string{
		"cpus": strconv.Itoa(vm.DefaultCPUs), "memory": strings.Replace(vm.DefaultMemory, "mib", " MiB", 1), "tools": vm.DefaultToolsTimeout.String(),
	} {
		if !strings.Contains(form, `id="h-`+name+`">Default: `+want) {
			t.Errorf("%s: its hint does not say %q", name, "Default: "+want)
		}
	}
	if strings.Contains(form, "placeholder=") {
		t.Error("a field of the form has a placeholder")
	}
	if !strings.Contains(html, `value="`+string(vm.NAT)+`" checked`) {
		t.Errorf("the form does not choose %s", vm.NAT)
	}
}

func files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("static", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
