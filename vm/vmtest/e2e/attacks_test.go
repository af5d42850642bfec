package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"osx-builder/vm/vmtest/harness"
)

// tokenDaemon is a daemon that requires a token. Its data folder has a file, the
// canary, that no request may read or change.
type tokenDaemon struct {
	*harness.Harness
	token, canary string
}

func newTokenDaemon(t *testing.T) tokenDaemon {
	t.Helper()
	a := tokenDaemon{token: strings.Repeat("Tk7", 12)}
	file := filepath.Join(t.TempDir(), "tokens")
	harness.Must(t, os.WriteFile(file, []byte(a.token+"\n"), 0o600))
	a.Harness = harness.New(t, "-host-names", "build.example", "-token-file", file, "-log-level", "debug")
	a.canary = filepath.Join(a.Data, "canary.json")
	harness.Must(t, os.WriteFile(a.canary, []byte(`{"version": 2}`), 0o600))
	t.Cleanup(a.checkUnaffected)
	return a
}

// checkUnaffected checks that the attack created no machine and did not change the
// canary, and that the log has no internal error and not the token.
func (a tokenDaemon) checkUnaffected() {
	a.T.Helper()
	list := a.request("GET", "/vms", "")
	if !strings.Contains(list.body, `"vms": []`) {
		a.T.Errorf("GET /vms after the attack: got %d %s, want no machine", list.status, list.body)
	}
	if b, err := os.ReadFile(a.canary); err != nil || string(b) != `{"version": 2}` {
		a.T.Errorf("the canary: got %q, %v, want it unchanged", b, err)
	}
	if bad := regexp.MustCompile(`(?m)^.*("status":500|panic|` + a.token + `).*$`).FindString(a.Log()); bad != "" {
		a.T.Errorf("the log has the line %s", bad)
	}
}

type response struct {
	status int
	body   string
}

// request sends a request with the token and the headers, which are pairs of name
// and value. They can replace the token.
func (a tokenDaemon) request(method, path, body string, headers ...string) response {
	a.T.Helper()
	req, err := http.NewRequest(method, a.URL+path, strings.NewReader(body))
	harness.Must(a.T, err)
	req.Header.Set("Authorization", "Bearer "+a.token)
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := a.Send(req)
	harness.Must(a.T, err)
	return response{res.Status, string(res.Body)}
}

// Requests that a browser sends for a page of another origin, or of a name that was
// rebound to the daemon's address, change nothing, even with a token.
func TestAttackFromAPage(t *testing.T) {
	t.Parallel()
	a := newTokenDaemon(t)
	body := a.createBody()
	own := strings.TrimPrefix(a.URL, "http://")
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for name, headers := range map[string][]string{
		"form of another origin":   {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		"old browser":              {"Origin", "https://evil.example"},
		"sandboxed frame":          {"Origin", "null"},
		"another port of the host": {"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"},
		"host as a prefix":         {"Origin", "http://" + own + ".evil.example"},
		"host as the user":         {"Origin", "http://" + own + "@evil.example"},
		"rebound name":             {"Host", "evil.example"},
		"rebound name, same origin": {
			"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin",
		},
		"Host has it as a prefix":  {"Host", "localhost.evil.example"},
		"Host has it as a suffix":  {"Host", "evil-localhost"},
		"name of numbers":          {"Host", "127.0.0.1.evil.example"},
		"decimal address":          {"Host", "2130706433"},
		"subdomain of -host-names": {"Host", "evil.build.example"},
	} {
		for _, method := range []string{"POST", "DELETE", "PATCH"} {
			if got := a.request(method, "/vms", body, append(headers, form...)...); got.status != http.StatusForbidden {
				t.Errorf("%s, %s: got %d %s, want 403", name, method, got.status, got.body)
			}
		}
	}
	if got := a.request("GET", "/vms", "", "Host", "BUILD.example.:12345"); got.status != http.StatusOK {
		t.Errorf("a name of -host-names: got %d %s, want 200", got.status, got.body)
	}
	got, err := a.Do("OPTIONS", "/vms", "", nil)
	harness.Must(t, err)
	for name := range got.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("the response to a preflight has %s: %s", name, got.Header.Get(name))
		}
	}
}

// createBody returns the body of a valid POST /vms.
func (a tokenDaemon) createBody() string {
	return `{"image": {"url": "` + a.Site.ImageURL("none") + `", "checksum": "` + strings.Repeat("0", 64) +
		`", "checksum_type": "sha256"}}`
}

// Guessed tokens, prefixes of the token, other schemes and tokens in other places
// are refused, and many refused requests do not lock out a valid one.
func TestAttackOnTokens(t *testing.T) {
	t.Parallel()
	a := newTokenDaemon(t)
	guesses := []string{
		"", "Bearer", "Bearer ", "Bearer null", "Basic " + a.token, a.token, "Bearer " + a.token + "\t.",
		"Bearer " + strings.ToLower(a.token), "Bearer " + strings.Repeat("x", 50_000),
	}
	for n := range len(a.token) {
		guesses = append(guesses, "Bearer "+a.token[:n], fmt.Sprintf("Bearer %s%x%s", a.token[:n], n, a.token[n+1:]))
	}
	path := "/vms?token=" + strings.Repeat("z", 36)
	for range 10 {
		for _, guess := range guesses {
			for _, method := range []string{"GET", "POST"} {
				if got := a.request(method, path, a.createBody(), "Authorization", guess); got.status != http.StatusUnauthorized {
					t.Fatalf("%s with %.60q: got %d %s, want 401", method, guess, got.status, got.body)
				}
			}
		}
	}
	if got := a.request("GET", "/vms", ""); got.status != http.StatusOK {
		t.Errorf("with the token, after the guesses: got %d, want 200", got.status)
	}
}

// No encoding of a path reaches a file outside of the records.
func TestAttackOnPaths(t *testing.T) {
	t.Parallel()
	a := newTokenDaemon(t)
	for _, id := range []string{
		"..", "../canary", "..%2fcanary", "%2e%2e%2fcanary", "%2e%2e/canary", "..%252fcanary", "..%5ccanary",
		"..%c0%afcanary", "....//canary", "%00", "x%00.json", "..%2f..%2f..%2f..%2fetc%2fpasswd", ".", "%2e",
		"..;/canary", "canary%0d%0aX-Evil:%201", "%ff%fe", "a%20b",
		"282ee68a-2e4d-4bd7-9c0e-7f37e12fc489%2f..%2f..%2fcanary",
		"282ee68a-2e4d-4bd7-9c0e-7f37e12fc489.json", strings.Repeat("a", 30_000),
		"{282ee68a-2e4d-4bd7-9c0e-7f37e12fc489}", "urn:uuid:282ee68a-2e4d-4bd7-9c0e-7f37e12fc489",
		"~", "*", "'%20or%201=1", "$(reboot)", "%7Breboot%7D",
	} {
		for _, prefix := range []string{"GET /vms/", "DELETE /vms/", "PATCH /vms/", "DELETE /images/", "GET /vms/../vms/"} {
			got := a.sendRaw(prefix + id + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + a.token +
				"\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{\"expires_in\":60}")
			if len(got) != 1 || got[0].status < 400 || got[0].status > 499 {
				t.Errorf("%s%.80s: got %+v, want one response with 4xx", prefix, id, got)
			}
		}
	}
}

// sendRaw writes bytes to the daemon and returns all responses. The daemon must
// close the connection.
func (a tokenDaemon) sendRaw(text string) (responses []response) {
	a.T.Helper()
	c := dial(a.Harness)
	defer c.Close()
	_, _ = io.WriteString(c, text) // the daemon may have closed the connection already
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		a.T.Errorf("%.200q: the daemon does not close the connection", text)
	}
	for r := bufio.NewReader(bytes.NewReader(b)); ; {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return responses
		}
		body, _ := io.ReadAll(res.Body)
		for name := range res.Header {
			if strings.Contains(name, "Evil") {
				a.T.Errorf("%.200q: the response has the header %s", text, name)
			}
		}
		responses = append(responses, response{res.StatusCode, string(body)})
	}
}

// hidden is a request after the end of an ambiguous or invalid one.
const hidden = "DELETE /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"

// smugglingRequests returns ambiguous and invalid requests, each followed by hidden.
func smugglingRequests(token string) map[string]string {
	head := "POST /vms HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n"
	return map[string]string{
		"length and chunked": head + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"chunked and length": head + "Transfer-Encoding: chunked\r\nContent-Length: 48\r\n\r\n0\r\n\r\n" + hidden,
		"two lengths":        head + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + hidden,
		"list of lengths":    head + "Content-Length: 0, 44\r\n\r\n" + hidden,
		"length with a sign": head + "Content-Length: +0\r\n\r\n" + hidden,
		"negative length":    head + "Content-Length: -1\r\n\r\n" + hidden,
		"hexadecimal length": head + "Content-Length: 0x0\r\n\r\n" + hidden,
		"huge length":        head + "Content-Length: 18446744073709551617\r\n\r\n" + hidden,
		"two encodings": head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" +
			"\r\n0\r\n\r\n" + hidden,
		"list of encodings":            head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden,
		"unknown encoding":             head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
		"encoding with a vertical tab": head + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hidden,
		"space before the colon":       head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
		"folded encoding": head + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n" +
			"\r\n0\r\n\r\n" + hidden,
		"folded header": head + "X-A: a\r\n Content-Length: 0\r\nTransfer-Encoding: chunked\r\n" +
			"\r\n0\r\n\r\n" + hidden,
		"bare LF": strings.ReplaceAll(
			head+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+hidden, "\r\n", "\n"),
		"bare LF after a chunk size": head + "Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + hidden,
		"LF in a chunk extension":    head + "Transfer-Encoding: chunked\r\n\r\n0;\nxx\r\n0\r\n\r\n" + hidden,
		"chunk size overflow":        head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n\r\n" + hidden,
		"bare CR in a header":        head + "X-A: a\rContent-Length: 0\r\n\r\n" + hidden,
		"NUL in a header":            head + "X-A: a\x00b\r\n\r\n" + hidden,
		"two Host headers":           head + "Host: evil.example\r\n\r\n" + hidden,
		"host in the request line": "POST http://evil.example/vms HTTP/1.1\r\nHost: localhost\r\n" +
			"Content-Length: 1\r\n\r\n{" + hidden,
		"no Host header":               "GET /vms HTTP/1.1\r\n\r\n" + hidden,
		"invalid version":              "GET /vms HTTP/1.1.1\r\nHost: localhost\r\n\r\n" + hidden,
		"two spaces":                   "GET  /vms HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden,
		"HTTP/0.9":                     "GET /vms\r\n\r\n" + hidden,
		"HTTP/2 preface":               "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden,
		"newline in the method":        "GE\nT /vms HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden,
		"header of 100 KiB":            head + "X-A: " + strings.Repeat("a", 100<<10) + "\r\n\r\n" + hidden,
		"10,000 headers":               head + strings.Repeat("X-A: aaaaaaaa\r\n", 10_000) + "\r\n" + hidden,
		"body shorter than its length": head + "Content-Type: text/plain\r\nContent-Length: 2000000\r\n\r\n" + hidden,
		"upgrade to cleartext HTTP/2": "GET /vms HTTP/1.1\r\nHost: localhost\r\n" +
			"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n" +
			"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n" + hidden,
		"folded request ID": "GET /vms HTTP/1.1\r\nHost: localhost\r\n" +
			"X-Request-Id: a\r\n X-Evil: 1\r\nConnection: close\r\n\r\n" + hidden,
		"bare CR in the request ID": "GET /vms HTTP/1.1\r\nHost: localhost\r\n" +
			"X-Request-Id: a\rX-Evil: 1\r\n\r\n" + hidden,
		"folded idempotency key": head + "Idempotency-Key: a\r\n X-Evil: 1\r\n" +
			"Content-Length: 2\r\nConnection: close\r\n\r\n{}" + hidden,
	}
}

// If a request's length is ambiguous or invalid, the bytes after it are not taken
// for another request: there is one response, and the connection is closed.
func TestAttackBySmuggling(t *testing.T) {
	t.Parallel()
	a := newTokenDaemon(t)
	for name, text := range smugglingRequests(a.token) {
		got := a.sendRaw(text)
		if len(got) > 1 || (len(got) == 1 && (got[0].status < 400 || got[0].status == 500)) {
			t.Errorf("%s: got %+v, want one response that refuses the request", name, got)
		}
	}
	got := a.sendRaw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n" +
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden)
	if len(got) != 1 || got[0].status != http.StatusOK {
		t.Errorf("length and chunked, without a token: got %+v, want one response with 200", got)
	}
	if strings.Contains(a.Log(), "/hidden") {
		t.Errorf("the daemon processed a hidden request: %s", a.Log())
	}
	if v, code, _ := a.VM("GET", "/healthz", nil, 200); code != "" {
		t.Errorf("GET /healthz afterwards: got %+v %s, want no error", v, code)
	}
}
