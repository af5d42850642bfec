package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"osx-builder/api"
	"osx-builder/callback"
	"osx-builder/image"
	"osx-builder/vm"
	"osx-builder/vm/vmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testServer is the API over real HTTP, with the in-memory driver.
type testServer struct {
	*httptest.Server
	t      testing.TB
	driver *vmtest.Driver
	vms    *vm.Manager
	image  vm.Image
	dir    string // the machines' folder
}

// config is what a testServer is made from.
type config struct {
	api   api.Options
	image image.Options
	vm    []func(*vm.Options)

	unchecked bool // do not compare requests and answers with openapi.json
}

// smallHost is the in-memory driver on a host with 8 processors and 8 GiB.
type smallHost struct{ *vmtest.Driver }

func (smallHost) Limits() vm.Limits { return vm.Limits{CPUs: 8, Memory: 8192} }

func (smallHost) Network(t vm.NetworkType) error {
	if t == vm.NAT {
		return nil
	}
	return &vm.Error{Code: vm.CodeNetworkUnavailable, Message: "network_type " + string(t) + " needs a host with networks"}
}

func serve(t testing.TB, options ...func(*vm.Options)) *testServer {
	t.Helper()
	return config{vm: options}.serve(t)
}

func (c config) serve(t testing.TB) *testServer {
	t.Helper()
	archive := archive(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(archive) }))
	t.Cleanup(web.Close)
	dir := t.TempDir()
	images, err := image.Open(filepath.Join(vmtest.TempDir(t), "images"), c.image)
	must(t, err)
	sender := callback.New(callback.Options{})
	s := &testServer{t: t, driver: &vmtest.Driver{}, dir: dir}
	o := vm.Options{Dir: dir, Driver: smallHost{s.driver}, Hypervisor: "memory", Images: images, Callbacks: sender}
	for _, change := range c.vm {
		change(&o)
	}
	c.api.Version = "test"
	if c.api.Log == nil {
		c.api.Log = slog.New(slog.DiscardHandler)
	}
	s.vms, err = vm.Open(o)
	must(t, err)
	sum := sha1.Sum(archive)
	s.image = vm.Image{URL: web.URL + "/i", Checksum: hex.EncodeToString(sum[:]), ChecksumType: "sha1"}
	handler := api.New(s.vms, c.api)
	if !c.unchecked {
		handler = checkContract(t, handler)
	}
	s.Server = httptest.NewServer(handler)
	t.Cleanup(func() {
		s.Server.Close()
		s.vms.Close()
		must(t, images.Close())
		sender.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// seedBody is the example request of the service's first description, including its trailing comma. Only the image
// differs.
func (s *testServer) seedBody() string {
	return fmt.Sprintf(`{
"cpus": 2,
"memory": "1gib",
"network_type": "nat",
"image": {
"url": %q,
"checksum": %q,
"checksum_type": "sha1"
},
"launch_gui": true,
}`, s.image.URL, s.image.Checksum)
}

// bodyWith is the seed's body with one field set to a JSON value.
func (s *testServer) bodyWith(field, value string) string {
	q := map[string]any{}
	must(s.t, json.Unmarshal([]byte(strings.ReplaceAll(s.seedBody(), "true,\n}", "true}")), &q))
	at := q
	if rest, ok := strings.CutPrefix(field, "image."); ok {
		at, field = q["image"].(map[string]any), rest
	}
	at[field] = json.RawMessage(value)
	b, err := json.Marshal(q)
	must(s.t, err)
	return string(b)
}

type answer struct {
	status int
	header http.Header
	body   string
	vm.Error
}

// blockCloning makes the driver wait before it clones a machine until release is called.
func (s *testServer) blockCloning() (release func()) {
	released := make(chan struct{})
	s.driver.Hook = func(ctx context.Context, step vmtest.Step, _ vm.Machine) error {
		if step == vmtest.Clone {
			select {
			case <-released:
			case <-ctx.Done():
			}
		}
		return nil
	}
	return func() { close(released) }
}

// do sends a request. The headers are pairs of name and value.
func (s *testServer) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	must(s.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	res, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(s.t, err)
	a := answer{status: res.StatusCode, header: res.Header, body: string(b)}
	if a.status >= 400 && method != http.MethodHead {
		must(s.t, json.Unmarshal(b, &a.Error))
		if a.Code == "" || a.Message == "" {
			s.t.Errorf("%s %s: error without code or message: %s", method, path, b)
		}
	}
	if len(b) > 0 && (!bytes.HasSuffix(b, []byte("\n")) || res.Header.Get("Content-Type") != "application/json") {
		s.t.Errorf("%s %s: got type %s and %q, want indented JSON with a final newline", method, path, res.Header.Get("Content-Type"), b)
	}
	if res.Header.Get("X-Request-Id") == "" {
		s.t.Errorf("%s %s: no X-Request-Id", method, path)
	}
	return a
}

// The seed's example, sent as curl -d sends it, returns the seed's fields in the seed's order. GET then returns the
// seed's other answer.
func TestSeedExample(t *testing.T) {
	s := serve(t)
	a := s.do("POST", "/vms", s.seedBody(), "Content-Type", "application/x-www-form-urlencoded")
	if a.status != http.StatusAccepted {
		t.Fatalf("got %d: %s", a.status, a.body)
	}
	const uuid = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`
	want := regexp.MustCompile(`(?s)^\{
  "id": "(` + uuid + `)",
  "image": \{
    "url": "` + regexp.QuoteMeta(s.image.URL) + `",
    "checksum": "` + s.image.Checksum + `",
    "checksum_type": "sha1"
  \},
  "cpus": 2,
  "memory": "1gib",
  "tools_init_timeout": 0,
  "launch_gui": true,
  "ip_address": "",
  "status": "",
  "guest_os": "",
  "network_type": "nat",
  "phase": "accepted",`)
	m := want.FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("got %s\nwant %s", a.body, want)
	}
	if got := a.header.Get("Location"); got != "/vms/"+m[1] {
		t.Errorf("Location: got %q", got)
	}
	a = s.do("GET", "/vms/"+m[1]+"?wait=30s", "")
	later := regexp.MustCompile(`(?s)"cpus": 2,
  "memory": "1.0gib",
  "tools_init_timeout": 0,
  "launch_gui": true,
  "ip_address": "192.0.2.1",
  "status": "powered-on",
  "guest_os": "other",
  "network_type": "nat",
  "phase": "ready",
  "tools_status": "running",
  "mac_address": "[0-9a-f:]{17}",
  "hypervisor": "memory",
  "created_at": "[0-9T:.-]+Z",
  "updated_at": "[0-9T:.-]+Z",
  "nics": \[
    {
      "model": "vmxnet3",
      "mac_address": "[0-9a-f:]{17}",
      "network_type": "nat",
      "ip_address": "192.0.2.1"
    }
  \]
}
$`)
	if a.status != http.StatusOK || !later.MatchString(a.body) {
		t.Errorf("GET: got %d %s\nwant %s", a.status, a.body, later)
	}
	if a = s.do("DELETE", "/vms/"+m[1], ""); a.status != http.StatusNoContent || a.body != "" {
		t.Errorf("DELETE: got %d %q, want 204 and no body", a.status, a.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if a = s.do(method, "/vms/"+m[1], ""); a.status != http.StatusNotFound || a.Code != vm.CodeNotFound {
			t.Errorf("%s after DELETE: got %d %s, want 404 %s", method, a.status, a.Code, vm.CodeNotFound)
		}
	}
}

func TestMediaTypes(t *testing.T) {
	s := serve(t)
	for _, ok := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON", "application/x-www-form-urlencoded", ""} {
		if a := s.do("POST", "/vms", s.seedBody(), "Content-Type", ok); a.status != http.StatusAccepted {
			t.Errorf("type %q: got %d %s, want 202", ok, a.status, a.body)
		}
	}
	for _, bad := range []string{"text/plain", "multipart/form-data; boundary=x", "application/xml", "json", ";"} {
		if a := s.do("POST", "/vms", s.seedBody(), "Content-Type", bad); a.status != http.StatusUnsupportedMediaType || a.Code != "unsupported-media-type" {
			t.Errorf("type %q: got %d %s, want 415 unsupported-media-type", bad, a.status, a.Code)
		}
	}
}

// Each invalid body returns its status, its code and the invalid field, and creates no machine.
func TestInvalidBodies(t *testing.T) {
	s := serve(t)
	for name, c := range map[string]struct {
		body   string
		status int
		code   vm.Code
		field  string
	}{
		"empty":               {"", 415, "invalid-json", ""},
		"blank":               {" \n", 415, "invalid-json", ""},
		"form":                {"cpus=2&memory=1gib", 415, "invalid-json", ""},
		"cut off":             {`{"cpus": 2,`, 415, "invalid-json", ""},
		"deep":                {strings.Repeat("[", 100_000), 415, "invalid-json", ""},
		"two documents":       {s.seedBody() + "{}", 400, "trailing-data", ""},
		"array":               {"[]", 400, vm.CodeInvalidField, ""},
		"string":              {`"x"`, 400, vm.CodeInvalidField, ""},
		"null":                {"null", 400, vm.CodeInvalidField, ""},
		"no fields":           {"{}", 400, vm.CodeInvalidField, "image.url"},
		"unknown field":       {s.bodyWith("cpu", "2"), 400, vm.CodeUnknownField, "cpu"},
		"large":               {`{"memory": "` + strings.Repeat("x", 1<<20) + `"}`, 413, "body-too-large", ""},
		"cpus text":           {s.bodyWith("cpus", `"2"`), 400, vm.CodeInvalidField, "cpus"},
		"cpus fraction":       {s.bodyWith("cpus", `1.5`), 400, vm.CodeInvalidField, "cpus"},
		"cpus negative":       {s.bodyWith("cpus", `-1`), 400, vm.CodeInvalidField, "cpus"},
		"cpus many":           {s.bodyWith("cpus", `9`), 400, vm.CodeInvalidField, "cpus"},
		"cpus huge":           {s.bodyWith("cpus", `1e99`), 400, vm.CodeInvalidField, "cpus"},
		"memory number":       {s.bodyWith("memory", `1024`), 400, vm.CodeInvalidField, "memory"},
		"memory SI":           {s.bodyWith("memory", `"1gb"`), 400, vm.CodeInvalidField, "memory"},
		"memory bare":         {s.bodyWith("memory", `"1024"`), 400, vm.CodeInvalidField, "memory"},
		"memory little":       {s.bodyWith("memory", `"16mib"`), 400, vm.CodeInvalidField, "memory"},
		"memory much":         {s.bodyWith("memory", `"1tib"`), 400, vm.CodeInvalidField, "memory"},
		"network unknown":     {s.bodyWith("network_type", `"lan"`), 400, vm.CodeInvalidField, "network_type"},
		"network missing":     {s.bodyWith("network_type", `"bridged"`), 400, vm.CodeNetworkUnavailable, "network_type"},
		"image text":          {s.bodyWith("image", `"http://x/"`), 400, vm.CodeInvalidField, "image"},
		"url relative":        {s.bodyWith("image.url", `"x"`), 400, vm.CodeInvalidField, "image.url"},
		"url ftp":             {s.bodyWith("image.url", `"ftp://x/y"`), 400, vm.CodeInvalidField, "image.url"},
		"url with user":       {s.bodyWith("image.url", `"http://u:p@x/y"`), 400, vm.CodeInvalidField, "image.url"},
		"url number":          {s.bodyWith("image.url", `1`), 400, vm.CodeInvalidField, "image.url"},
		"checksum short":      {s.bodyWith("image.checksum", `"ab"`), 400, vm.CodeInvalidField, "image.checksum"},
		"checksum not hex":    {s.bodyWith("image.checksum", `"`+strings.Repeat("z", 40)+`"`), 400, vm.CodeInvalidField, "image.checksum"},
		"checksum type":       {s.bodyWith("image.checksum_type", `"crc"`), 400, vm.CodeInvalidField, "image.checksum_type"},
		"unknown image field": {s.bodyWith("image.size", `1`), 400, vm.CodeUnknownField, "image.size"},
		"gui text":            {s.bodyWith("launch_gui", `"yes"`), 400, vm.CodeInvalidField, "launch_gui"},
		"callback relative":   {s.bodyWith("callback_url", `"/x"`), 400, vm.CodeInvalidField, "callback_url"},
		"timeout text":        {s.bodyWith("tools_init_timeout", `"soon"`), 400, vm.CodeInvalidField, "tools_init_timeout"},
		"timeout long":        {s.bodyWith("tools_init_timeout", `3601`), 400, vm.CodeInvalidField, "tools_init_timeout"},
		"timeout negative":    {s.bodyWith("tools_init_timeout", `-1`), 400, vm.CodeInvalidField, "tools_init_timeout"},
	} {
		a := s.do("POST", "/vms", c.body)
		if a.status != c.status || a.Code != c.code || a.Field != c.field {
			t.Errorf("%s: got %d %s %q (%s), want %d %s %q", name, a.status, a.Code, a.Field, a.Message, c.status, c.code, c.field)
		}
	}
	if a := s.do("GET", "/vms", ""); a.body != "{\n  \"vms\": []\n}\n" {
		t.Errorf("after invalid bodies: got %s, want no machine", a.body)
	}
}

func TestPathsAndMethods(t *testing.T) {
	s := serve(t)
	for _, c := range []struct {
		method, path string
		status       int
		code         vm.Code
		allow        string
	}{
		{"GET", "/nothing", 404, "not-found", ""},
		{"POST", "/", 405, "method-not-allowed", "GET, HEAD, OPTIONS"},
		{"GET", "//vms/", 404, "not-found", ""},
		{"GET", "/nothing/", 404, "not-found", ""},
		{"GET", "/VMS", 404, "not-found", ""},
		{"GET", "/vms/a/b", 404, "not-found", ""},
		{"GET", "/vms/x", 404, vm.CodeNotFound, ""},
		{"GET", "/vms/..%2f..%2fetc%2fpasswd", 404, "not-found", ""},
		{"DELETE", "/vms/%00", 404, vm.CodeNotFound, ""},
		{"DELETE", "/vms/282ee68a-2e4d-4bd7-9c0e-7f37e12fc489", 404, vm.CodeNotFound, ""},
		{"GET", "/vms/282EE68A-2E4D-4BD7-9C0E-7F37E12FC489", 404, vm.CodeNotFound, ""},
		{"PUT", "/vms", 405, "method-not-allowed", "DELETE, GET, HEAD, OPTIONS, POST"},
		{"POST", "/vms/x", 405, "method-not-allowed", "DELETE, GET, HEAD, OPTIONS, PATCH"},
		{"DELETE", "/healthz", 405, "method-not-allowed", "GET, HEAD, OPTIONS"},
		{"GET", "/vms?phase=asleep", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms?status=on", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms/282ee68a-2e4d-4bd7-9c0e-7f37e12fc489?wait=11m", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms/282ee68a-2e4d-4bd7-9c0e-7f37e12fc489?wait=-1s", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms/282ee68a-2e4d-4bd7-9c0e-7f37e12fc489?wait=long", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms/x?wait=", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms/x?wait=1s&wait=2s", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms/x?wiat=5m", 400, vm.CodeUnknownField, ""},
		{"GET", "/vms?wait=5m", 400, vm.CodeUnknownField, ""},
		{"GET", "/vms?phase", 400, vm.CodeInvalidField, ""},
		{"GET", "/vms?phase=%zz", 400, vm.CodeInvalidField, ""},
		{"POST", "/vms?x=1", 400, vm.CodeUnknownField, ""},
		{"DELETE", "/images/abcd?force=1", 400, vm.CodeUnknownField, ""},
		{"GET", "/metrics?x=1", 400, vm.CodeUnknownField, ""},
		{"GET", "/healthz?verbose=2", 400, vm.CodeInvalidField, ""},
	} {
		a := s.do(c.method, c.path, "")
		if a.status != c.status || a.Code != c.code || a.header.Get("Allow") != c.allow {
			t.Errorf("%s %s: got %d %s, Allow %q, want %d %s, %q", c.method, c.path, a.status, a.Code, a.header.Get("Allow"), c.status, c.code, c.allow)
		}
	}
	if a := s.do("HEAD", "/healthz", ""); a.status != http.StatusOK || a.body != "" {
		t.Errorf("HEAD /healthz: got %d %q, want 200 and no body", a.status, a.body)
	}
}

// Requests that a web page of another site can send are refused. Requests of curl and scripts are not.
func TestCrossOriginRequests(t *testing.T) {
	s := serve(t)
	for _, c := range []struct {
		headers []string
		code    vm.Code
	}{
		{[]string{"Origin", "https://evil.example"}, "cross-origin-refused"},
		{[]string{"Sec-Fetch-Site", "cross-site"}, "cross-origin-refused"},
		{[]string{"Host", "evil.example:12345"}, "host-refused"},
		{[]string{"Host", "localhost.evil.example"}, "host-refused"},
		{[]string{"Host", "LOCALHOST:1"}, ""},
		{[]string{"Host", "[::1]:1"}, ""},
		{[]string{"Sec-Fetch-Site", "same-origin"}, ""},
	} {
		a := s.do("POST", "/vms", s.seedBody(), c.headers...)
		if a.Code != c.code || (c.code == "") != (a.status == http.StatusAccepted) || (c.code != "" && a.status != http.StatusForbidden) {
			t.Errorf("%v: got %d %s, want %q", c.headers, a.status, a.Code, c.code)
		}
	}
}

func TestRequestID(t *testing.T) {
	s := serve(t)
	if got := s.do("GET", "/healthz", "", "X-Request-Id", "job-7.2").header.Get("X-Request-Id"); got != "job-7.2" {
		t.Errorf("a valid ID: got %q, want the same", got)
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 129), "<script>"} {
		if got := s.do("GET", "/healthz", "", "X-Request-Id", bad).header.Get("X-Request-Id"); got == bad || got == "" {
			t.Errorf("ID %q: got %q, want a new one", bad, got)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	s := serve(t)
	post := func(key, body string) answer { return s.do("POST", "/vms", body, "Idempotency-Key", key) }
	first, second := post("k", s.seedBody()), post("k", s.seedBody())
	if first.status != 202 || second.status != 202 || first.header.Get("Location") != second.header.Get("Location") {
		t.Errorf("got %d %s, then %d %s, want one machine", first.status, first.header.Get("Location"), second.status, second.header.Get("Location"))
	}
	if a := post("k", s.bodyWith("cpus", "1")); a.status != http.StatusConflict || a.Code != vm.CodeIdempotencyConflict {
		t.Errorf("another body: got %d %s, want 409 %s", a.status, a.Code, vm.CodeIdempotencyConflict)
	}
	for _, key := range []string{strings.Repeat("k", 256), "ä", "a\tb"} {
		if a := post(key, s.seedBody()); a.status != 400 || a.Field != "Idempotency-Key" {
			t.Errorf("key %.20q: got %d %q, want 400 for Idempotency-Key", key, a.status, a.Field)
		}
	}
	if a := post("refused", s.bodyWith("cpus", "-1")); a.status != 400 {
		t.Fatalf("got %d", a.status)
	}
	if a := post("refused", s.seedBody()); a.status != 202 {
		t.Errorf("a key whose first request was refused: got %d %s, want 202", a.status, a.Code)
	}
}

func TestBusy(t *testing.T) {
	s := serve(t, func(o *vm.Options) { o.Creations = 1 })
	release := s.blockCloning()
	if a := s.do("POST", "/vms", s.seedBody()); a.status != 202 {
		t.Fatalf("got %d", a.status)
	}
	a := s.do("POST", "/vms", s.seedBody())
	if a.status != http.StatusServiceUnavailable || a.Code != vm.CodeBusy || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s, Retry-After %q, want 503 %s", a.status, a.Code, a.header.Get("Retry-After"), vm.CodeBusy)
	}
	release()
}

func TestUnreadableMachine(t *testing.T) {
	s := serve(t)
	a := s.do("POST", "/vms", s.seedBody())
	path := a.header.Get("Location")
	s.do("GET", path+"?wait=1m", "")
	s.driver.Hook = func(_ context.Context, step vmtest.Step, _ vm.Machine) error {
		if step == vmtest.Inspect {
			return errors.New("a stale lock")
		}
		return nil
	}
	if a = s.do("GET", path, ""); a.status != http.StatusConflict || a.Code != vm.CodeOpen || !strings.Contains(a.Message, "a stale lock") {
		t.Errorf("GET: got %d %s %q, want 409 %s", a.status, a.Code, a.Message, vm.CodeOpen)
	}
	if a = s.do("GET", "/vms", ""); a.status != 200 || !strings.Contains(a.body, string(vm.CodeOpen)) {
		t.Errorf("list: got %d %s, want 200 with the entry's error", a.status, a.body)
	}
	if a = s.do("DELETE", path, ""); a.status != http.StatusNoContent {
		t.Errorf("DELETE: got %d %s, want 204", a.status, a.body)
	}
}

// A handler's panic returns an error, and the daemon continues.
func TestPanic(t *testing.T) {
	s := serve(t)
	a := s.do("POST", "/vms", s.seedBody())
	path := a.header.Get("Location")
	s.do("GET", path+"?wait=1m", "")
	s.driver.Hook = func(context.Context, vmtest.Step, vm.Machine) error { panic("broken driver") }
	if a = s.do("GET", path, ""); a.status != 500 || a.Code != vm.CodeInternal || strings.Contains(a.body, "broken driver") {
		t.Errorf("got %d %s, want 500 %s without the panic's text", a.status, a.body, vm.CodeInternal)
	}
	s.driver.Hook = nil
	if a = s.do("GET", path, ""); a.status != 200 {
		t.Errorf("afterwards: got %d, want 200", a.status)
	}
}

func TestHealth(t *testing.T) {
	s := serve(t)
	a := s.do("GET", "/healthz", "")
	if a.status != 200 || !strings.Contains(a.body, `"status": "ok"`) || !strings.Contains(a.body, `"hypervisor": "memory"`) {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	const vmx = "guestOS = \"other\"\n"
	must(t, w.WriteHeader(&tar.Header{Name: "a.vmx", Mode: 0o644, Size: int64(len(vmx)), Typeflag: tar.TypeReg}))
	_, err := io.WriteString(w, vmx)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
