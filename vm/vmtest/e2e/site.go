package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
)

// Site is a web server on the loopback address that serves images and receives
// callbacks.
type Site struct {
	URL       string
	Callbacks chan Callback // the requests to CallbackURL

	// Serve answers the requests for images if it is set, instead of the file
	// server. Once a daemon of another process may send requests, use SetServe.
	Serve func(w http.ResponseWriter, r *http.Request, file string)

	dir       string
	server    *httptest.Server
	mu        sync.Mutex // guards downloads
	downloads map[string]int
}

// Callback is the request of a callback.
type Callback struct {
	Header http.Header
	Body   []byte
}

// NewSite starts a server for the files of dir.
func NewSite(dir string) *Site {
	s := &Site{dir: dir, Callbacks: make(chan Callback, 1000), downloads: make(map[string]int)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images/{file}", func(w http.ResponseWriter, r *http.Request) {
		file := r.PathValue("file")
		s.mu.Lock()
		s.downloads[file]++
		serve := s.Serve
		s.mu.Unlock()
		if serve != nil {
			serve(w, r, filepath.Join(dir, file))
			return
		}
		http.ServeFile(w, r, filepath.Join(dir, file))
	})
	mux.HandleFunc("POST /callback", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.Callbacks <- Callback{r.Header, b}
		w.WriteHeader(http.StatusNoContent)
	})
	s.server = httptest.NewServer(mux)
	s.URL = s.server.URL
	return s
}

// SetServe sets Serve. It may be called while requests come.
func (s *Site) SetServe(serve func(w http.ResponseWriter, r *http.Request, file string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Serve = serve
}

// Close stops the server.
func (s *Site) Close() { s.server.Close() }

// ImageURL returns the URL of a file.
func (s *Site) ImageURL(file string) string { return s.URL + "/images/" + file }

// Image returns the image of a file of the folder.
func (s *Site) Image(file string) (Image, error) {
	sum, err := SHA256(filepath.Join(s.dir, file))
	return Image{URL: s.ImageURL(file), SHA256: sum}, err
}

// CallbackURL returns the URL for callbacks.
func (s *Site) CallbackURL() string { return s.URL + "/callback" }

// Downloads returns the number of requests for a file.
func (s *Site) Downloads(file string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.downloads[file]
}

// SHA256 returns a file's checksum in hex.
func SHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
