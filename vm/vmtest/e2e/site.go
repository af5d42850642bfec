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

// Site is a web site on loopback that serves images and receives callbacks.
type Site struct {
	URL       string
	Callbacks chan Callback // what arrived at CallbackURL

	// Serve, where set, answers requests for images in place of the file
	// server.
	Serve func(w http.ResponseWriter, r *http.Request, file string)

	server *httptest.Server
	mu     sync.Mutex // guards gets
	gets   map[string]int
}

// Callback is a callback's request.
type Callback struct {
	Header http.Header
	Body   []byte
}

// NewSite serves the files of dir.
func NewSite(dir string) *Site {
	s := &Site{Callbacks: make(chan Callback, 1000), gets: make(map[string]int)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images/{file}", func(w http.ResponseWriter, r *http.Request) {
		file := r.PathValue("file")
		s.mu.Lock()
		s.gets[file]++
		s.mu.Unlock()
		if s.Serve != nil {
			s.Serve(w, r, filepath.Join(dir, file))
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

// Close ends the site.
func (s *Site) Close() { s.server.Close() }

// ImageURL is where a file is served.
func (s *Site) ImageURL(file string) string { return s.URL + "/images/" + file }

// CallbackURL is where callbacks are received.
func (s *Site) CallbackURL() string { return s.URL + "/callback" }

// Gets is how often a file was asked for.
func (s *Site) Gets(file string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets[file]
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
