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

// jsonObject is a document as a client without our types decodes it.
type jsonObject map[string]any

// plainClient sends requests to the daemon and to guests with only net/http and
// encoding/json.
type plainClient struct {
	t   *testing.T
	url string
}

// do sends a request and returns the document of the response, which must have the
// status want.
func (c plainClient) do(method, path, body string, want int) (d jsonObject) {
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

// getText returns the body of the response to a GET.
func (c plainClient) getText(path string) string {
	c.t.Helper()
	res, err := http.Get(c.url + path)
	harness.Must(c.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	harness.Must(c.t, err)
	return string(text)
}

// eventStream reads GET /events.
type eventStream struct {
	client plainClient
	lines  *bufio.Scanner
}

func (c plainClient) events() (n eventStream, stop func()) {
	c.t.Helper()
	res, err := http.Get(c.url + "/events")
	harness.Must(c.t, err)
	end := time.AfterFunc(harness.Timeout, func() { _ = res.Body.Close() })
	return eventStream{c, bufio.NewScanner(res.Body)}, func() { end.Stop(); _ = res.Body.Close() }
}

// waitFor reads events until one has these words in its data.
func (n eventStream) waitFor(event string, words ...string) {
	n.client.t.Helper()
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
	n.client.t.Fatalf("the stream ended before an event %s with %q: %v", event, words, n.lines.Err())
}

// guestPage returns the values of the guest's page, after it answers.
func (c plainClient) guestPage(path, page string) map[string]string {
	c.t.Helper()
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		v := c.do("GET", path, "", http.StatusOK)
		res, err := http.Get("http://" + v["ip_address"].(string) + page)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		harness.Must(c.t, err)
		values := map[string]string{}
		for line := range strings.Lines(string(text)) {
			k, v, _ := strings.Cut(line, ": ")
			values[k] = strings.TrimSpace(v)
		}
		return values
	}
	c.t.Fatal("the guest's page does not answer")
	return nil
}

// A client with only HTTP and JSON uses the whole API for one machine. It creates the
// machine, reads its console and screen, suspends it, restarts the daemon, resumes
// the machine, lets its guest shut down, powers the machine on and off, and destroys
// it. The guest records its clean shutdown on its disk.
func TestLifecycleOverPlainHTTP(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	c := plainClient{t, s.URL}
	if index := c.do("GET", "/", "", http.StatusOK); index["service"] != "osx-builder" {
		t.Errorf("GET /: got %v", index)
	}
	paths := c.do("GET", "/openapi.json", "", http.StatusOK)["paths"].(map[string]any)
	if paths["/vms/{id}/power"] == nil {
		t.Errorf("GET /openapi.json: got paths %v", paths)
	}
	events, stop := c.events()
	events.waitFor("hello")
	i := s.Image(harness.TinyVM)
	body, err := json.Marshal(jsonObject{
		"memory": "128mib",
		"image":  jsonObject{"url": i.URL, "checksum": i.SHA256, "checksum_type": "sha256"},
	})
	harness.Must(t, err)
	path := "/vms/" + c.do("POST", "/vms", string(body), http.StatusAccepted)["id"].(string)
	events.waitFor("vm", `"phase":"ready"`, `"status":"powered-on"`)
	boot := c.guestPage(path, "/")["boot_id"]
	if console := c.getText(path + "/console"); !strings.Contains(console, "tinyvm: booting") {
		t.Errorf("the console: got %q", console)
	}
	if _, err := png.Decode(strings.NewReader(c.getText(path + "/screenshot"))); err != nil {
		t.Errorf("the screenshot: %v", err)
	}
	power := func(action string) any {
		t.Helper()
		return c.do("POST", path+"/power", `{"action": "`+action+`"}`, http.StatusOK)["status"]
	}
	if got := power("suspend"); got != "suspended" {
		t.Errorf("suspended: got status %v", got)
	}
	events.waitFor("vm", `"status":"suspended"`)
	harness.Must(t, s.Stop())
	stop()
	s.Start()
	c.url = s.URL
	events, stop = c.events()
	defer stop()
	events.waitFor("hello")
	if got := c.do("GET", path, "", http.StatusOK)["status"]; got != "suspended" {
		t.Errorf("after the daemon's restart: got status %v, want suspended", got)
	}
	if got := power("resume"); got != "powered-on" || c.guestPage(path, "/")["boot_id"] != boot {
		t.Errorf("resumed: got status %v, want powered-on in the same boot", got)
	}
	c.do("POST", path+"/power", `{"action": "resume"}`, http.StatusOK)

	power("shutdown")
	events.waitFor("vm", `"status":"powered-off"`)
	c.do("POST", path+"/power", `{"action": "reset"}`, http.StatusConflict)
	c.do("GET", path+"/screenshot", "", http.StatusConflict)
	if console := c.getText(path + "/console?tail=4096"); !strings.Contains(console, "tinyvm: shutting down") {
		t.Errorf("the guest did not shut down; its console ends in %q", console)
	}
	power("on")
	values := c.guestPage(path, "/")
	last := values["last_shutdown"]
	if !strings.HasPrefix(last, "clean ") || !strings.HasSuffix(last, boot) || values["boot_id"] == boot {
		t.Errorf("the next boot read %q from its disk, want a clean shutdown of boot %s", last, boot)
	}
	if got := power("off"); got != "powered-off" {
		t.Errorf("off: got status %v", got)
	}
	c.do("DELETE", path, "", http.StatusNoContent)
	events.waitFor("gone", path[len("/vms/"):])
	if e := c.do("GET", path, "", http.StatusNotFound); e["code"] != "vm-not-found" {
		t.Errorf("GET after the DELETE: got %v, want vm-not-found", e)
	}
}
