// Package page serves the daemon's page for browsers: a few static files in the binary that use only the HTTP API.
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

// prefix is the path of the page's files.
const prefix = "/page/"

// contentSecurityPolicy allows the page to load its own files and to call its own daemon, and nothing else. It allows
// blob: for screenshots, which the page fetches with a token that an <img> cannot send. Trusted types make the browser
// refuse innerHTML and similar, should one ever be used.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// file is one of the page's files.
type file struct {
	name string // its base name, whose extension determines the content type
	body []byte
	etag string
}

// Handler serves the page at GET / to clients that ask for HTML, and its files below /page/. Every other request goes
// to next. The documents are those that the page links to, by file name: Markdown or JSON. The files and the documents
// contain no secrets, so no token is needed to read them.
func Handler(next http.Handler, documents map[string][]byte) http.Handler {
	files := loadFiles()
	for name, body := range documents {
		files[name] = newFile(name, body)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Add("Vary", "Accept")
		}
		f := requestedFile(files, r)
		if f == nil {
			next.ServeHTTP(w, r)
			return
		}
		f.serve(w, r)
	})
}

// loadFiles reads the embedded files. It panics if that fails, which a build with the files rules out.
func loadFiles() map[string]*file {
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
		files[e.Name()] = newFile(e.Name(), body)
	}
	return files
}

func newFile(name string, body []byte) *file {
	sum := sha256.Sum256(body)
	return &file{name: name, body: body, etag: `"` + hex.EncodeToString(sum[:12]) + `"`}
}

// requestedFile returns the file that r asks for, or nil.
func requestedFile(files map[string]*file, r *http.Request) *file {
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

// serve answers with the file. Browsers cache it and revalidate it each time, so files of two daemon versions never
// mix.
func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", contentType(f.name))
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
}

// contentType returns a file's type. It does not depend on the host's table of MIME types.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".json":
		return "application/json"
	case ".md":
		return "text/plain; charset=utf-8" // browsers show no Markdown
	default:
		return "image/svg+xml"
	}
}

// wantsHTML reports whether a client's Accept header names HTML and does not prefer JSON. Browsers send such a header;
// curl sends */*.
func wantsHTML(accept []string) bool {
	var html, json float64
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		mediaType, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		switch mediaType {
		case "text/html":
			html = q
		case "application/json":
			json = q
		}
	}
	return html > 0 && html >= json
}
