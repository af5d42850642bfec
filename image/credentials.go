package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"

	"github.com/jdx/go-netrc"
	"golang.org/x/net/http/httpguts"
)

// Credentials holds what image servers ask for: for each server, or a folder of one, a header that requests carry. Its
// methods may be called concurrently.
type Credentials struct {
	read    func() (string, error)
	current atomic.Pointer[[]credential]
}

// credential is the header for the URLs below a prefix.
type credential struct {
	scheme, host string // host has the port if it is not the scheme's
	path         string // without a slash at its end; "" means the whole server
	name, value  string
	insecure     bool // the header may be sent without TLS
}

// OpenCredentials reads the credentials. read returns their text, in the form that [ParseCredentials] reads; if it is
// nil, there are none.
func OpenCredentials(read func() (string, error)) (*Credentials, error) {
	c := &Credentials{read: read}
	c.current.Store(new([]credential))
	return c, c.Reload()
}

// Reload reads the credentials again. If that fails, the previous ones stay in use.
func (c *Credentials) Reload() error {
	if c.read == nil {
		return nil
	}
	text, err := c.read()
	var list []credential
	if err == nil {
		list, err = parseCredentials(text)
	}
	if err != nil {
		return fmt.Errorf("reading the credentials for image servers (-credentials-file): %w", err)
	}
	c.current.Store(&list)
	return nil
}

// ParseCredentials checks the text of a file of credentials. It has one of two forms. In the first, each line has the
// start of a URL and what to send below it:
//
//	https://images.example.com/private/ bearer TOKEN
//	https://artifacts.example.com/ basic USER PASSWORD
//	https://artifacts.example.com/ header X-Api-Key VALUE
//
// Blank lines and lines that begin with # are skipped. The second form is that of .netrc files, with "machine", "login"
// and "password"; a "default" is refused, because it would send the password to every server that a client names. The
// errors name the line, and contain nothing of the credentials.
func ParseCredentials(text string) error {
	_, err := parseCredentials(text)
	return err
}

func parseCredentials(text string) ([]credential, error) {
	if first := strings.Fields(text); len(first) > 0 && (first[0] == "machine" || first[0] == "default") {
		return parseNetrc(text)
	}
	var list []credential
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c, err := parseCredential(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("there are none; write lines such as: https://images.example.com/ bearer TOKEN")
	}
	return list, nil
}

func parseCredential(line string) (credential, error) {
	prefix, rest := cutWord(line)
	kind, value := cutWord(rest)
	c, err := newCredential(prefix)
	if err != nil {
		return c, err
	}
	switch kind {
	case "bearer":
		c.name, c.value = "Authorization", "Bearer "+value
	case "basic":
		user, password := cutWord(value)
		c.name, c.value, value = "Authorization", basic(user, password), password
		if user == "" || strings.Contains(user, ":") {
			return c, errors.New("after basic come a user name without a colon, and a password")
		}
	case "header":
		c.name, c.value = cutWord(value)
		value = c.value
		if !httpguts.ValidHeaderFieldName(c.name) || isOwnHeader(c.name) {
			return c, errors.New("after header come the name of a header that the daemon does not send itself, and its value")
		}
	default:
		return c, errors.New("after the URL comes bearer, basic or header")
	}
	if value == "" || !httpguts.ValidHeaderFieldValue(c.value) {
		return c, errors.New("the value is missing, or contains control characters")
	}
	return c, nil
}

// newCredential reads the start of a URL.
func newCredential(prefix string) (credential, error) {
	u, err := url.Parse(prefix)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return credential{}, errors.New("a line begins with an https or http URL that has only a host and a path")
	}
	return credential{
		scheme: u.Scheme, host: hostPort(u), path: strings.TrimRight(u.Path, "/"), insecure: u.Scheme == "http",
	}, nil
}

// parseNetrc reads a file in the format of .netrc.
func parseNetrc(text string) ([]credential, error) {
	file, err := netrc.ParseString(text)
	if err != nil {
		return nil, errors.New("the file is not in the format of .netrc")
	}
	var list []credential
	for _, m := range file.Machines() {
		login, password := m.Get("login"), m.Get("password")
		switch {
		case m.IsDefault:
			return nil, errors.New("the entry default would be sent to every server that a client names; name each machine")
		case login == "" || password == "":
			return nil, errors.New("each machine needs a login and a password")
		}
		c, err := newCredential("https://" + m.Name)
		if err != nil {
			return nil, errors.New("machine is followed by a host name, with a port if it is not 443")
		}
		c.name, c.value = "Authorization", basic(login, password)
		list = append(list, c)
	}
	return list, nil
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// cutWord returns the first word of text and what follows it.
func cutWord(text string) (word, rest string) {
	i := strings.IndexAny(text, " \t")
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimSpace(text[i:])
}

// isOwnHeader reports whether the daemon itself, or package http, sends this header.
func isOwnHeader(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Range", "If-Range", "User-Agent", "Accept-Encoding", "Cache-Control", "Connection", "Content-Length",
		"Transfer-Encoding", "Upgrade", "Te", "Trailer", "Proxy-Authorization", "Proxy-Connection":
		return true
	}
	return false
}

// hostPort returns the host of a URL in lower case, with the port.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), port)
}

// matches reports whether a credential may be sent with a request for u, and how specific it is.
func (c credential) matches(u *url.URL) (length int, ok bool) {
	clean := u.Path == "" || path.Clean(u.Path) == strings.TrimRight(u.Path, "/") || u.Path == "/"
	below := c.path == "" || clean && (u.Path == c.path || strings.HasPrefix(u.Path, c.path+"/"))
	secure := u.Scheme == "https" || c.insecure || isLoopback(u.Hostname())
	if u.Scheme == "http" && !c.insecure && secure {
		// A line for https also serves a server on loopback without TLS, at the same port.
		return len(c.path), below && c.host == hostPort(u)
	}
	return len(c.path), below && secure && c.scheme == u.Scheme && c.host == hostPort(u)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// find returns the credential for a URL: the one with the longest path.
func (c *Credentials) find(u *url.URL) (best credential, found bool) {
	longest := -1
	for _, one := range *c.current.Load() {
		if n, ok := one.matches(u); ok && n > longest {
			best, longest = one, n
		}
	}
	return best, longest >= 0
}

// credentialTransport adds credentials to requests. They are not part of the original request, so a redirect does not
// copy them.
type credentialTransport struct {
	http.RoundTripper
	credentials *Credentials
}

func (t *credentialTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	c, found := t.credentials.find(req.URL)
	if !found || hasLeftHost(req) {
		return t.RoundTripper.RoundTrip(req)
	}
	with := req.Clone(req.Context())
	with.Header.Set(c.name, c.value)
	res, err := t.RoundTripper.RoundTrip(with)
	if res != nil {
		res.Request = req // an error or a redirect that quotes the request must not see the credentials
	}
	return res, err
}

// hasLeftHost reports whether a redirect led to a request from another server.
func hasLeftHost(req *http.Request) bool {
	for r := req; r.Response != nil && r.Response.Request != nil; r = r.Response.Request {
		if before := r.Response.Request.URL; before.Scheme != req.URL.Scheme || hostPort(before) != hostPort(req.URL) {
			return true
		}
	}
	return false
}
