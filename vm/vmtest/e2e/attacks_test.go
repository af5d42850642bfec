package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

// attacked is a daemon that wants a token, and a file beside its records that
// nobody may reach.
type attacked struct {
	*harness.Harness
	token, canary string
}

func newAttacked(t *testing.T) attacked {
	t.Helper()
	a := attacked{token: strings.Repeat("Tk7", 12)}
	file := filepath.Join(t.TempDir(), "tokens")
	harness.Must(t, os.WriteFile(file, []byte(a.token+"\n"), 0o600))
	a.Harness = harness.New(t, "-host-names", "build.example", "-token-file", file, "-log-level", "debug")
	a.canary = filepath.Join(a.Data, "canary.json")
	harness.Must(t, os.WriteFile(a.canary, []byte(`{"version": 2}`), 0o600))
	t.Cleanup(a.unharmed)
	return a
}

// unharmed checks that no attack left a machine, an internal error or a secret
// in the log, or touched what is not the API's.
func (a attacked) unharmed() {
	a.T.Helper()
	list := a.ask("GET", "/vms", "")
	if !strings.Contains(list.body, `"vms": []`) {
		a.T.Errorf("after the attack: got %d %s, want no machine", list.status, list.body)
	}
	if b, err := os.ReadFile(a.canary); err != nil || string(b) != `{"version": 2}` {
		a.T.Errorf("the file beside the records: got %q, %v", b, err)
	}
	if bad := regexp.MustCompile(`(?m)^.*("status":500|panic|` + a.token + `).*$`).FindString(a.Log()); bad != "" {
		a.T.Errorf("the log has %s", bad)
	}
}

type reply struct {
	status int
	body   string
}

// ask sends a request with the token, if no header says otherwise; headers
// come in pairs.
func (a attacked) ask(method, path, body string, headers ...string) reply {
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
	return reply{res.Status, string(res.Body)}
}

// What a page of another origin, or one whose name was rebound to this
// address, can make a browser send changes nothing, token or not.
func TestAttackFromAPage(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	body := a.anyBody()
	own := strings.TrimPrefix(a.URL, "http://")
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for name, headers := range map[string][]string{
		"form of another origin":     {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		"of an old browser":          {"Origin", "https://evil.example"},
		"of a sandboxed frame":       {"Origin", "null"},
		"of another port of ours":    {"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"},
		"with our name in its own":   {"Origin", "http://" + own + ".evil.example"},
		"with our name as its user":  {"Origin", "http://" + own + "@evil.example"},
		"rebound name":               {"Host", "evil.example"},
		"rebound name, same origin":  {"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"},
		"name that begins with ours": {"Host", "localhost.evil.example"},
		"name that ends with ours":   {"Host", "evil-localhost"},
		"numbers that are a name":    {"Host", "127.0.0.1.evil.example"},
		"decimal address":            {"Host", "2130706433"},
		"name below one of ours":     {"Host", "evil.build.example"},
	} {
		for _, method := range []string{"POST", "DELETE", "PATCH"} {
			if got := a.ask(method, "/vms", body, append(headers, form...)...); got.status != http.StatusForbidden {
				t.Errorf("%s, %s: got %d %s, want 403", name, method, got.status, got.body)
			}
		}
	}
	if got := a.ask("GET", "/vms", "", "Host", "BUILD.example.:12345"); got.status != http.StatusOK {
		t.Errorf("to a name of -host-names: got %d %s, want 200", got.status, got.body)
	}
	got, err := a.Do("OPTIONS", "/vms", "", nil)
	harness.Must(t, err)
	for name := range got.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("a preflight is answered with %s: %s", name, got.Header.Get(name))
		}
	}
}

// anyBody is a request that would make a machine.
func (a attacked) anyBody() string {
	return `{"image": {"url": "` + a.Site.ImageURL("none") + `", "checksum": "` + strings.Repeat("0", 64) + `", "checksum_type": "sha256"}}`
}

// Guesses, prefixes, other schemes and tokens in other places let nobody in,
// however many there are.
func TestAttackOnTokens(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	guesses := []string{"", "Bearer", "Bearer ", "Bearer null", "Basic " + a.token, a.token, "Bearer " + a.token + "\t.", "Bearer " + strings.ToLower(a.token), "Bearer " + strings.Repeat("x", 50_000)}
	for n := range len(a.token) {
		guesses = append(guesses, "Bearer "+a.token[:n], fmt.Sprintf("Bearer %s%x%s", a.token[:n], n, a.token[n+1:]))
	}
	for range 10 {
		for _, guess := range guesses {
			for _, method := range []string{"GET", "POST"} {
				if got := a.ask(method, "/vms?token="+strings.Repeat("z", 36), a.anyBody(), "Authorization", guess); got.status != http.StatusUnauthorized {
					t.Fatalf("%s with %.60q: got %d %s, want 401", method, guess, got.status, got.body)
				}
			}
		}
	}
	if got := a.ask("GET", "/vms", ""); got.status != http.StatusOK {
		t.Errorf("with the token after all the guesses: got %d, want 200", got.status)
	}
}

// No way of writing a path leads out of the records.
func TestAttackOnPaths(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	for _, id := range []string{
		"..", "../canary", "..%2fcanary", "%2e%2e%2fcanary", "%2e%2e/canary", "..%252fcanary", "..%5ccanary", "..%c0%afcanary", "....//canary",
		"%00", "x%00.json", "..%2f..%2f..%2f..%2fetc%2fpasswd", ".", "%2e", "..;/canary", "canary%0d%0aX-Evil:%201", "%ff%fe", "a%20b",
		"282ee68a-2e4d-4bd7-9c0e-7f37e12fc489%2f..%2f..%2fcanary", "282ee68a-2e4d-4bd7-9c0e-7f37e12fc489.json", strings.Repeat("a", 30_000),
		"{282ee68a-2e4d-4bd7-9c0e-7f37e12fc489}", "urn:uuid:282ee68a-2e4d-4bd7-9c0e-7f37e12fc489", "~", "*", "'%20or%201=1", "$(reboot)", "%7Breboot%7D",
	} {
		for _, c := range [][2]string{{"GET", "/vms/"}, {"DELETE", "/vms/"}, {"PATCH", "/vms/"}, {"DELETE", "/images/"}, {"GET", "/vms/../vms/"}} {
			got := a.raw(fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{\"expires_in\":60}", c[0], c[1], id, a.token))
			if len(got) != 1 || got[0].status < 400 || got[0].status > 499 {
				t.Errorf("%s %s%.80s: got %+v, want one answer of 4xx", c[0], c[1], id, got)
			}
		}
	}
}

// raw writes bytes to the daemon and returns its answers up to its closing the
// connection, which it must do by itself.
func (a attacked) raw(text string) (replies []reply) {
	a.T.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
	harness.Must(a.T, err)
	defer c.Close()
	harness.Must(a.T, c.SetDeadline(time.Now().Add(harness.Timeout)))
	_, _ = io.WriteString(c, text) // it may have closed already
	b, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		a.T.Errorf("%.200q: the connection stays open", text)
	}
	for r := bufio.NewReader(bytes.NewReader(b)); ; {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return replies
		}
		body, _ := io.ReadAll(res.Body)
		for name := range res.Header {
			if strings.Contains(name, "Evil") {
				a.T.Errorf("%.200q: the answer has the header %s", text, name)
			}
		}
		replies = append(replies, reply{res.StatusCode, string(body)})
	}
}

// However a request's end is blurred, what hides behind it is not taken for
// another request: there is one answer, and the connection is closed.
func TestAttackBySmuggling(t *testing.T) {
	t.Parallel()
	a := newAttacked(t)
	const hidden = "DELETE /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
	head := "POST /vms HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + a.token + "\r\n"
	for name, text := range map[string]string{
		"length and chunks":             head + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"chunks and length":             head + "Transfer-Encoding: chunked\r\nContent-Length: 48\r\n\r\n0\r\n\r\n" + hidden,
		"two lengths":                   head + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + hidden,
		"a list of lengths":             head + "Content-Length: 0, 44\r\n\r\n" + hidden,
		"length with a sign":            head + "Content-Length: +0\r\n\r\n" + hidden,
		"negative length":               head + "Content-Length: -1\r\n\r\n" + hidden,
		"hexadecimal length":            head + "Content-Length: 0x0\r\n\r\n" + hidden,
		"huge length":                   head + "Content-Length: 18446744073709551617\r\n\r\n" + hidden,
		"two encodings":                 head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"a list of encodings":           head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + hidden,
		"encoding that is none":         head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
		"encoding with a vertical tab":  head + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + hidden,
		"blank before the colon":        head + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
		"folded encoding":               head + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + hidden,
		"folded header":                 head + "X-A: a\r\n Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"bare LF":                       strings.ReplaceAll(head, "\r\n", "\n") + "Transfer-Encoding: chunked\n\n0\n\n" + strings.ReplaceAll(hidden, "\r\n", "\n"),
		"bare LF after a chunk's size":  head + "Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + hidden,
		"LF in a chunk's extension":     head + "Transfer-Encoding: chunked\r\n\r\n0;\nxx\r\n0\r\n\r\n" + hidden,
		"chunk larger than its bytes":   head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n\r\n" + hidden,
		"bare CR in a header":           head + "X-A: a\rContent-Length: 0\r\n\r\n" + hidden,
		"NUL in a header":               head + "X-A: a\x00b\r\n\r\n" + hidden,
		"two hosts":                     head + "Host: evil.example\r\n\r\n" + hidden,
		"host in the request's line":    "POST http://evil.example/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{" + hidden,
		"no host":                       "GET /vms HTTP/1.1\r\n\r\n" + hidden,
		"version that is none":          "GET /vms HTTP/1.1.1\r\nHost: localhost\r\n\r\n" + hidden,
		"two blanks":                    "GET  /vms HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden,
		"HTTP/0.9":                      "GET /vms\r\n\r\n" + hidden,
		"HTTP/2's preface":              "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden,
		"method with a line's end":      "GE\nT /vms HTTP/1.1\r\nHost: localhost\r\n\r\n" + hidden,
		"header of 100 KiB":             head + "X-A: " + strings.Repeat("a", 100<<10) + "\r\n\r\n" + hidden,
		"10,000 headers":                head + strings.Repeat("X-A: aaaaaaaa\r\n", 10_000) + "\r\n" + hidden,
		"body that is not that long":    head + "Content-Type: text/plain\r\nContent-Length: 2000000\r\n\r\n" + hidden,
		"upgrade to cleartext HTTP/2":   "GET /vms HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n" + hidden,
		"request ID with a line's end":  "GET /vms HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\r\n X-Evil: 1\r\nConnection: close\r\n\r\n" + hidden,
		"request ID that is a carriage": "GET /vms HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\rX-Evil: 1\r\n\r\n" + hidden,
		"key with a line's end":         head + "Idempotency-Key: a\r\n X-Evil: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" + hidden,
	} {
		got := a.raw(text)
		if len(got) > 1 || (len(got) == 1 && (got[0].status < 400 || got[0].status == 500)) {
			t.Errorf("%s: got %+v, want one answer that refuses it", name, got)
		}
	}
	if got := a.raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden); len(got) != 1 || got[0].status != http.StatusOK {
		t.Errorf("length and chunks of what is open: got %+v, want one answer", got)
	}
	if strings.Contains(a.Log(), "/hidden") {
		t.Errorf("a hidden request was taken: %s", a.Log())
	}
	if v, code, _ := a.VM("GET", "/healthz", nil, 200); code != "" {
		t.Errorf("afterwards: got %+v %s, want health", v, code)
	}
}
