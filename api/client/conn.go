package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	standardHost = "http://127.0.0.1:12345"

	// dialTime is what reaching the daemon may take.
	dialTime = 10 * time.Second
)

// conn is the way to a daemon.
type conn struct {
	name  string // as the user gave it
	base  string // of URLs, without a slash at its end
	token string
	http  *http.Client
}

// dial reads the settings of the connection. Nothing is sent yet.
func (c *cli) dial() (*conn, error) {
	name := cmp.Or(c.host, c.Getenv("OSX_BUILDER_HOST"), standardHost)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	dialer := &net.Dialer{Timeout: dialTime}
	transport.DialContext = dialer.DialContext
	n := &conn{name: name, http: &http.Client{
		Transport: transport,
		// A daemon redirects nowhere, and the token is for it alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(name, "unix:"); ok {
		if path == "" {
			return nil, usage("--host %q: it must name the socket, as in unix:/run/osx-builder.sock", name)
		}
		n.base = "http://localhost"
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	} else {
		u, err := url.Parse(name)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
			return nil, usage("--host %q: it must be http://HOST:PORT, https://HOST:PORT or unix:/PATH", name)
		}
		n.base = strings.TrimRight(name, "/")
	}
	var err error
	if n.token, err = readToken(cmp.Or(c.tokenFile, c.Getenv("OSX_BUILDER_TOKEN_FILE"))); err != nil {
		return nil, err
	}
	transport.TLSClientConfig, err = trust(cmp.Or(c.caCert, c.Getenv("OSX_BUILDER_CA_CERT")))
	return n, err
}

// readToken reads the first token of a file. It takes the daemon's own file,
// where there can be several, and comments.
func readToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", &failure{exitUsage, fmt.Errorf("reading the token: %w", err)}
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line, nil
		}
	}
	return "", usage("reading the token: there is none in %s", file)
}

// trust returns how the daemon's certificate is checked: against the file's
// certificates, or, without a file, the system's.
func trust(file string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if file == "" {
		return t, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, &failure{exitUsage, fmt.Errorf("reading the certificate: %w", err)}
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, usage("reading the certificate: %s holds none in PEM form", file)
	}
	return t, nil
}
