package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

const (
	defaultHost = "http://127.0.0.1:12345"

	// dialTimeout is the longest time that connecting to the daemon may take.
	dialTimeout = 10 * time.Second
)

// settings describe how to connect to the daemon. Flags take precedence over environment variables.
type settings struct {
	host, tokenFile, caCert string
	getenv                  func(string) string
}

func (s *settings) addFlags(f *pflag.FlagSet) {
	f.StringVar(&s.host, "host", "", "the daemon's address: [http://]HOST:PORT, https://HOST:PORT or unix:/PATH (variable OSX_BUILDER_HOST; default "+defaultHost+")")
	f.StringVar(&s.tokenFile, "token-file", "", "file with the daemon's token (variable OSX_BUILDER_TOKEN_FILE)")
	f.StringVar(&s.caCert, "ca-cert", "", "PEM file with the certificate that signed the daemon's (variable OSX_BUILDER_CA_CERT)")
}

// newClient returns a client of the daemon. It reads the token and the certificate, but sends no request.
func (s *settings) newClient() (*apiClient, error) {
	name := cmp.Or(s.host, s.getenv("OSX_BUILDER_HOST"), defaultHost)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport.DialContext = dialer.DialContext
	c := &apiClient{name: name, http: &http.Client{
		Transport: transport,
		// The daemon does not redirect, and no other server may get the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(name, "unix:"); ok {
		if path == "" {
			return nil, usageError("--host %q: it must name the socket, for example unix:/run/osx-builder.sock", name)
		}
		c.baseURL = "http://localhost"
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	} else {
		base := name
		if !strings.Contains(base, "://") {
			base = "http://" + base
		}
		u, err := url.Parse(base)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
			return nil, usageError("--host %q: it must be [http://]HOST:PORT, https://HOST:PORT or unix:/PATH", name)
		}
		c.baseURL = strings.TrimRight(base, "/")
		c.remote = !isLoopback(u.Hostname())
	}
	var err error
	if c.token, err = readToken(cmp.Or(s.tokenFile, s.getenv("OSX_BUILDER_TOKEN_FILE"))); err != nil {
		return nil, err
	}
	transport.TLSClientConfig, err = tlsConfig(cmp.Or(s.caCert, s.getenv("OSX_BUILDER_CA_CERT")))
	return c, err
}

// isLoopback reports whether a host is this one.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// readToken returns the first token in a file. The file can be the daemon's own, which may contain several tokens and
// comments.
func readToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", usageError("reading the token: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return strings.Fields(line)[0], nil // its name and scopes may follow
		}
	}
	return "", usageError("reading the token: %s contains no token", file)
}

// tlsConfig returns a configuration that trusts the certificates in a PEM file. If file is "", it trusts the system's.
func tlsConfig(file string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if file == "" {
		return t, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, usageError("reading the certificate: %w", err)
	}
	t.RootCAs = x509.NewCertPool()
	if !t.RootCAs.AppendCertsFromPEM(pem) {
		return nil, usageError("reading the certificate: %s contains no certificate in PEM format", file)
	}
	return t, nil
}
