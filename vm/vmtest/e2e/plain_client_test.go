package e2e_test

import (
	"bufio"
	"encoding/json"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

// document is what a client without our types sees of an answer.
type document map[string]any

// client speaks to the daemon, and to its guests, with nothing but HTTP and
// JSON.
type client struct {
	t   *testing.T
	url string
}

// ask sends a request and reads the answer, which must have the status.
func (c client) ask(method, path, body string, want int) (d document) {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	harness.Must(c.t, err)
	res, err := http.DefaultClient.Do(req)
	harness.Must(c.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	harness.Must(c.t, err)
	if res.StatusCode != want {
		c.t.Fatalf("%s %s %s: got %d %s, want %d", method, path, body, res.StatusCode, text, want)
	}
	if len(text) > 0 && res.Header.Get("Content-Type") == "application/json" {
		harness.Must(c.t, json.Unmarshal(text, &d))
	}
	return d
}

// text reads an answer that is no JSON.
func (c client) text(path string) string {
	c.t.Helper()
	res, err := http.Get(c.url + path)
	harness.Must(c.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	harness.Must(c.t, err)
	return string(text)
}

// news is GET /events as it is read.
type news struct {
	c     client
	lines *bufio.Scanner
}

func (c client) listen() (n news, hangUp func()) {
	c.t.Helper()
	res, err := http.Get(c.url + "/events")
	harness.Must(c.t, err)
	end := time.AfterFunc(harness.Timeout, func() { _ = res.Body.Close() })
	return news{c, bufio.NewScanner(res.Body)}, func() { end.Stop(); _ = res.Body.Close() }
}

// until reads up to an event with these words in its data.
func (n news) until(event string, words ...string) {
	n.c.t.Helper()
	name := ""
	for n.lines.Scan() {
		field, value, _ := strings.Cut(n.lines.Text(), ": ")
		if field == "event" {
			name = value
		}
		missing := field != "data" || name != event
		for _, word := range words {
			missing = missing || !strings.Contains(value, word)
		}
		if !missing {
			return
		}
	}
	n.c.t.Fatalf("the stream ended before an event %s with %q: %v", event, words, n.lines.Err())
}

// guest is the machine's own page, once it answers.
func (c client) guest(path, page string) map[string]string {
	c.t.Helper()
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		v := c.ask("GET", path, "", http.StatusOK)
		res, err := http.Get("http://" + v["ip_address"].(string) + page)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		harness.Must(c.t, err)
		facts := map[string]string{}
		for line := range strings.Lines(string(text)) {
			k, v, _ := strings.Cut(line, ": ")
			facts[k] = strings.TrimSpace(v)
		}
		return facts
	}
	c.t.Fatal("the guest's page does not answer")
	return nil
}

// A client that knows nothing but HTTP, JSON and what GET / and the API's
// description say walks a machine through its whole life: made, seen,
// suspended over a restart of the daemon, shut down by its own guest, which
// writes to its disk as it goes down, switched on again, reset, and gone.
func TestLifeOverPlainHTTP(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	c := client{t, s.URL}
	if index := c.ask("GET", "/", "", http.StatusOK); index["service"] != "osx-builder" {
		t.Errorf("GET /: got %v", index)
	}
	if paths := c.ask("GET", "/openapi.json", "", http.StatusOK)["paths"].(map[string]any); paths["/vms/{id}/power"] == nil {
		t.Errorf("GET /openapi.json: got paths %v", paths)
	}
	n, hangUp := c.listen()
	n.until("hello")
	i := s.Image(harness.TinyVM)
	body, err := json.Marshal(document{"memory": "128mib", "image": document{"url": i.URL, "checksum": i.SHA256, "checksum_type": "sha256"}})
	harness.Must(t, err)
	path := "/vms/" + c.ask("POST", "/vms", string(body), http.StatusAccepted)["id"].(string)
	n.until("vm", `"phase":"ready"`, `"status":"powered-on"`)
	boot := c.guest(path, "/")["boot_id"]
	if console := c.text(path + "/console"); !strings.Contains(console, "tinyvm: booting") {
		t.Errorf("the console: got %q", console)
	}
	if _, err := png.Decode(strings.NewReader(c.text(path + "/screenshot"))); err != nil {
		t.Errorf("the screenshot: %v", err)
	}
	press := func(action string) any {
		t.Helper()
		return c.ask("POST", path+"/power", `{"action": "`+action+`"}`, http.StatusOK)["status"]
	}
	if got := press("suspend"); got != "suspended" {
		t.Errorf("suspended: got status %v", got)
	}
	n.until("vm", `"status":"suspended"`)
	harness.Must(t, s.Stop())
	hangUp()
	s.Start()
	c.url = s.URL
	n, hangUp = c.listen()
	defer hangUp()
	n.until("hello")
	if got := c.ask("GET", path, "", http.StatusOK)["status"]; got != "suspended" {
		t.Errorf("after the daemon's restart: got status %v, want suspended", got)
	}
	if got := press("resume"); got != "powered-on" || c.guest(path, "/")["boot_id"] != boot {
		t.Errorf("resumed: got status %v, want powered-on in the same boot", got)
	}
	c.ask("POST", path+"/power", `{"action": "resume"}`, http.StatusOK)

	press("shutdown")
	n.until("vm", `"status":"powered-off"`)
	c.ask("POST", path+"/power", `{"action": "reset"}`, http.StatusConflict)
	c.ask("GET", path+"/screenshot", "", http.StatusConflict)
	if console := c.text(path + "/console?tail=4096"); !strings.Contains(console, "tinyvm: shutting down") {
		t.Errorf("the guest was not asked to shut down; its console ends in %q", console)
	}
	press("on")
	facts := c.guest(path, "/")
	if last := facts["last_shutdown"]; !strings.HasPrefix(last, "clean ") || !strings.HasSuffix(last, boot) || facts["boot_id"] == boot {
		t.Errorf("the next boot finds %q on its disk, want a clean shutdown of boot %s", last, boot)
	}
	if got := press("off"); got != "powered-off" {
		t.Errorf("off: got status %v", got)
	}
	c.ask("DELETE", path, "", http.StatusNoContent)
	n.until("gone", path[len("/vms/"):])
	if e := c.ask("GET", path, "", http.StatusNotFound); e["code"] != "vm-not-found" {
		t.Errorf("once gone: got %v", e)
	}
}
