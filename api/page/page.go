// Package page serves the daemon's page for browsers: a few static files in
// the binary, which know nothing that the HTTP API does not tell them.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// prefix is where the files are that the page asks for.
const prefix = "/page/"

// policy lets the page load its own files and talk to its own daemon, and
// nothing else. blob: is for screenshots, which are fetched with a token that
// an <img> cannot send. Trusted types make the browser refuse innerHTML and
// its like, should one ever slip in.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// file is one of the page's files, as it is served.
type file struct {
	name string // its base name, which tells its type
	body []byte
	etag string
}

// Before answers GET / with the page where the client asks for HTML, and GET
// /page/ with its files. All else goes to next. The files are the same for
// everybody: no token is needed to read them.
func Before(next http.Handler) http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Add("Vary", "Accept")
		}
		f := find(files, r)
		if f == nil {
			next.ServeHTTP(w, r)
			return
		}
		f.serve(w, r)
	})
}

// load reads the files. That they can be read is known when the binary is built.
func load() map[string]*file {
	files := make(map[string]*file)
	entries, err := fs.ReadDir(static, "static")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		body, err := fs.ReadFile(static, path.Join("static", e.Name()))
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(body)
		files[e.Name()] = &file{name: e.Name(), body: body, etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
	}
	return files
}

// find is the file that a request asks for, or nil.
func find(files map[string]*file, r *http.Request) *file {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil
	}
	if r.URL.Path == "/" && wantsHTML(r.Header.Values("Accept")) {
		return files["index.html"]
	}
	name, ok := strings.CutPrefix(r.URL.Path, prefix)
	if !ok || name == "index.html" {
		return nil
	}
	return files[name]
}

// serve answers with the file. Browsers keep it, and ask each time whether it
// is still the one: after an update of the daemon no old part is mixed in.
func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", contentType(f.name))
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
}

// contentType is a file's type, whatever the host's own table says.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	default:
		return "image/svg+xml"
	}
}

// wantsHTML tells whether a client asks for HTML by name, and no less than for
// JSON. Browsers do; curl's */* does not.
func wantsHTML(accept []string) bool {
	var html, json float64
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		switch kind {
		case "text/html":
			html = q
		case "application/json":
			json = q
		}
	}
	return html > 0 && html >= json
}
