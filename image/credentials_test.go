package image_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"osx-builder/image"
	"osx-builder/vm/vmtest"
)

// plantedSecret must reach nobody but the server that it is for.
const plantedSecret = "s3cr3t-planted"

// server records the credentials of the requests to it.
type credentialServer struct {
	*httptest.Server
	mu  sync.Mutex
	got []string // the values of Authorization and X-Api-Key
}

func newCredentialServer(t *testing.T, tls bool, h http.HandlerFunc) *credentialServer {
	t.Helper()
	s := &credentialServer{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.got = append(s.got, r.Header.Get("Authorization")+r.Header.Get("X-Api-Key"))
		s.mu.Unlock()
		h(w, r)
	})
	if tls {
		s.Server = httptest.NewTLSServer(handler)
	} else {
		s.Server = httptest.NewServer(handler)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *credentialServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

func credentials(t *testing.T, text string) *image.Credentials {
	t.Helper()
	c, err := image.OpenCredentials(func() (string, error) { return text, nil })
	must(t, err)
	return c
}

// Credentials reach the server and the folder that they are for, in each form.
func TestCredentials(t *testing.T) {
	good := gzipOf(t, tarOf(t, someFiles()...))
	s := newCredentialServer(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) })
	host := strings.TrimPrefix(s.URL, "http://")
	for name, tt := range map[string]struct{ file, path, want string }{
		"bearer":            {s.URL + "/ bearer abc", "/a", "Bearer abc"},
		"basic":             {s.URL + "/ basic ci pass word", "/a", "Basic Y2k6cGFzcyB3b3Jk"},
		"header":            {s.URL + "/ header X-Api-Key abc", "/a", "abc"},
		"comments":          {"# ours\n\n" + s.URL + "\tbearer\tabc\r\n", "/a", "Bearer abc"},
		"longest path":      {s.URL + "/ bearer a\n" + s.URL + "/x/y bearer b\n" + s.URL + "/x bearer c", "/x/y/z", "Bearer b"},
		"folder itself":     {s.URL + "/x/ bearer abc", "/x", "Bearer abc"},
		"another folder":    {s.URL + "/x bearer abc", "/xy", ""},
		"leaves the folder": {s.URL + "/x bearer abc", "/x/../y", ""},
		"the same, encoded": {s.URL + "/x bearer abc", "/x/%2e%2e/y", ""},
		"another host":      {"https://images.example.com/ bearer abc", "/a", ""},
		"another port":      {"http://127.0.0.1:1/ bearer abc", "/a", ""},
		"netrc":             {"machine images.example.com login a password b\nmachine " + host + "\n  login ci\n  password pass\n", "/a", "Basic Y2k6cGFzcw=="},
		"https on loopback": {"https://" + host + "/ bearer abc", "/a", "Bearer abc"},
	} {
		t.Run(name, func(t *testing.T) {
			s.mu.Lock()
			s.got = nil
			s.mu.Unlock()
			dir := vmtest.TempDir(t)
			c, err := image.Open(dir, image.Options{Credentials: credentials(t, tt.file)})
			must(t, err)
			defer c.Close()
			_, err = c.Ensure(t.Context(), image.Source{URL: s.URL + tt.path, Sum: sumOf(t, good)}, nil)
			must(t, err)
			if got := s.requests(); len(got) != 1 || got[0] != tt.want {
				t.Errorf("got credentials %q, want %q", got, tt.want)
			}
		})
	}
}

// A redirect to another server never carries credentials there, or back, and they
// show in no error, log or file.
func TestCredentialsStayWithTheirServer(t *testing.T) {
	good := gzipOf(t, tarOf(t, someFiles()...))
	var other, first *credentialServer
	other = newCredentialServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			http.Redirect(w, r, first.URL+"/file", http.StatusFound)
			return
		}
		_, _ = w.Write(good)
	})
	first = newCredentialServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/other":
			http.Redirect(w, r, other.URL+"/file", http.StatusFound)
		case "/there-and-back":
			http.Redirect(w, r, other.URL+"/back", http.StatusFound)
		case "/same":
			http.Redirect(w, r, "/file", http.StatusFound)
		case "/refuses":
			http.Error(w, r.Header.Get("Authorization"), http.StatusForbidden)
		case "/fails":
			w.Header().Set("Retry-After", "9999999")
			http.Error(w, r.Header.Get("Authorization"), http.StatusServiceUnavailable)
		default:
			_, _ = w.Write(good)
		}
	})
	file := first.URL + "/ bearer " + plantedSecret + "\n" + other.URL + "/ bearer for-the-other"
	for path, tt := range map[string]struct {
		first, other string // the credentials of each server's requests
		fails        bool
	}{
		"/other":          {first: "Bearer " + plantedSecret, other: ""},
		"/there-and-back": {first: "Bearer " + plantedSecret + "|", other: ""},
		"/same":           {first: "Bearer " + plantedSecret + "|Bearer " + plantedSecret},
		"/refuses":        {first: "Bearer " + plantedSecret, fails: true},
		"/fails":          {first: "Bearer " + plantedSecret, fails: true},
	} {
		t.Run(path, func(t *testing.T) {
			for _, s := range []*credentialServer{first, other} {
				s.mu.Lock()
				s.got = nil
				s.mu.Unlock()
			}
			var log bytes.Buffer
			dir := vmtest.TempDir(t)
			c, err := image.Open(dir, image.Options{
				Credentials: credentials(t, file), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			})
			must(t, err)
			_, err = c.Ensure(t.Context(), image.Source{URL: first.URL + path, Sum: sumOf(t, good)}, nil)
			must(t, c.Close())
			if (err != nil) != tt.fails {
				t.Fatalf("got error %v, want one: %t", err, tt.fails)
			}
			if got := strings.Join(first.requests(), "|"); got != tt.first {
				t.Errorf("the first server got %q, want %q", got, tt.first)
			}
			if got := strings.Join(other.requests(), "|"); got != tt.other {
				t.Errorf("the other server got %q, want %q", got, tt.other)
			}
			for what, text := range map[string]string{"error": errorText(err), "log": log.String(), "files": allFiles(t, dir)} {
				if strings.Contains(text, plantedSecret) {
					t.Errorf("the %s shows the credentials: %s", what, text)
				}
			}
		})
	}
}

func errorText(err error) (text string) {
	for ; err != nil; err = errors.Unwrap(err) {
		text += err.Error() + "\n"
	}
	return text
}

// allFiles returns the names and contents of all files below dir.
func allFiles(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all.WriteString(path + "\n" + string(b))
		return err
	}))
	return all.String()
}

// Without TLS, credentials reach only loopback, unless the file says http.
func TestCredentialsNeedTLS(t *testing.T) {
	proxied := make(chan string, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied <- r.Header.Get("Authorization")
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(proxy.Close)
	at, err := url.Parse(proxy.URL)
	must(t, err)
	for file, want := range map[string]string{
		"https://images.example.com/ bearer abc":            "",
		"https://images.example.com:80/ bearer abc":         "",
		"machine images.example.com login a password b":     "",
		"http://images.example.com/ bearer abc":             "Bearer abc",
		"http://IMAGES.example.com:80/a bearer abc":         "Bearer abc",
		"http://images.example.com.evil.com/ bearer abc":    "",
		"http://example.com/ bearer abc":                    "",
		"http://images.example.com:8080/ header X-Test abc": "",
	} {
		rt := image.TransportWith(credentials(t, file), &http.Transport{Proxy: http.ProxyURL(at)})
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://images.example.com/a", nil)
		must(t, err)
		res, err := rt.RoundTrip(req)
		must(t, err)
		must(t, res.Body.Close())
		if got := <-proxied; got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
		if req.Header.Get("Authorization") != "" || res.Request.Header.Get("Authorization") != "" {
			t.Errorf("%s: the request that the caller sees has the credentials", file)
		}
	}
}

// The errors of a file name the line, and nothing of the credentials.
func TestInvalidCredentials(t *testing.T) {
	for file, want := range map[string]string{
		"":            "there are none",
		"# nothing\n": "there are none",
		"images.example.com bearer " + plantedSecret:                             "line 1: a line begins with",
		"\nftp://a/ bearer " + plantedSecret:                                     "line 2: a line begins with",
		"https://u:" + plantedSecret + "@a/ bearer x":                            "a line begins with",
		"https://a/?q=" + plantedSecret + " bearer x":                            "a line begins with",
		"https://a/ token " + plantedSecret:                                      "bearer, basic or header",
		"https://a/ bearer":                                                      "the value is missing",
		"https://a/ basic " + plantedSecret:                                      "the value is missing",
		"https://a/ basic a:b " + plantedSecret:                                  "without a colon",
		"https://a/ header X-A":                                                  "the value is missing",
		"https://a/ header Range " + plantedSecret:                               "does not send itself",
		"https://a/ header X:Y " + plantedSecret:                                 "the name of a header",
		"https://a/ bearer a\x01" + plantedSecret:                                "control characters",
		"default login a password " + plantedSecret:                              "default",
		"machine a login b":                                                      "a login and a password",
		"machine a/b?c login b password " + plantedSecret:                        "host name",
		"machine a login b password c default login d password " + plantedSecret: "default",
	} {
		err := image.ParseCredentials(file)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", file, err, want)
		}
		if err != nil && strings.Contains(err.Error(), plantedSecret) {
			t.Errorf("%q: the error shows the credentials: %v", file, err)
		}
	}
}

// A server whose certificate comes from an authority of RootCAs is trusted.
func TestRootCAs(t *testing.T) {
	good := gzipOf(t, tarOf(t, someFiles()...))
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) }))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	for _, tt := range []struct {
		pool *x509.CertPool
		want error
	}{{nil, image.ErrDownload}, {pool, nil}} {
		c, err := image.Open(vmtest.TempDir(t), image.Options{RootCAs: tt.pool})
		must(t, err)
		if _, err := c.Ensure(t.Context(), image.Source{URL: s.URL + "/a", Sum: sumOf(t, good)}, nil); !errors.Is(err, tt.want) {
			t.Errorf("got %v, want %v", err, tt.want)
		}
		must(t, c.Close())
	}
}

// A file that cannot be read any more leaves the previous credentials in use.
func TestReloadCredentials(t *testing.T) {
	good := gzipOf(t, tarOf(t, someFiles()...))
	s := newCredentialServer(t, true, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) })
	text := s.URL + "/ bearer one"
	creds, err := image.OpenCredentials(func() (string, error) {
		if text == "" {
			return "", os.ErrNotExist
		}
		return text, nil
	})
	must(t, err)
	rt := image.TransportWith(creds, s.Client().Transport)
	for _, step := range []struct{ text, want string }{{text, "Bearer one"}, {s.URL + "/ bearer two", "Bearer two"}, {"", "Bearer two"}, {"junk", "Bearer two"}} {
		text = step.text
		_ = creds.Reload()
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/a", nil)
		must(t, err)
		res, err := rt.RoundTrip(req)
		must(t, err)
		must(t, res.Body.Close())
		if got := s.requests(); got[len(got)-1] != step.want {
			t.Errorf("after %q: got %q, want %q", step.text, got[len(got)-1], step.want)
		}
	}
}
