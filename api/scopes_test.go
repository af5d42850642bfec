package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/api"
	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// as sends a request with a token.
func (s *testServer) as(token, method, path, body string, headers ...string) answer {
	s.t.Helper()
	return s.do(method, path, body, append(headers, "Authorization", "Bearer "+token)...)
}

// createAs creates a machine with a token, and waits until it is ready. fields are added to the request.
func (s *testServer) createAs(token string, fields ...string) (v vm.VM) {
	s.t.Helper()
	body := s.bodyWith("memory", `"64mib"`)
	for i := 0; i < len(fields); i += 2 {
		body = strings.Replace(body, "{", fmt.Sprintf("{%q: %s,", fields[i], fields[i+1]), 1)
	}
	a := s.as(token, "POST", "/vms", body)
	if a.status != http.StatusAccepted {
		s.t.Fatalf("POST /vms with %s: got %d %s", token, a.status, a.body)
	}
	a = s.as(secret, "GET", a.header.Get("Location")+"?wait=1m", "")
	must(s.t, json.Unmarshal([]byte(a.body), &v))
	return v
}

// access is what the tests expect of the tokens with one scope each.
type access struct{ own, others, read, create string }

// The outcomes of a request.
const (
	allowed   = "allowed"
	forbidden = "forbidden" // 403, and the message names the scope
	hidden    = "hidden"    // 404, as if there were no such machine
)

// decisions says for each route what tokens may do: with the scope own, at machines of the token and at those of
// others; and with the scopes read and create. All may be done with the scope admin.
var decisions = map[string]access{
	"GET /":                    {allowed, allowed, allowed, allowed},
	"GET /openapi.json":        {allowed, allowed, allowed, allowed},
	"GET /healthz":             {allowed, allowed, allowed, allowed},
	"POST /vms":                {forbidden, forbidden, forbidden, allowed},
	"GET /vms":                 {allowed, allowed, allowed, forbidden}, // what they list is tested below
	"DELETE /vms":              {allowed, allowed, forbidden, forbidden},
	"GET /vms/:id":             {allowed, hidden, allowed, forbidden},
	"GET /vms/:id/console":     {allowed, hidden, allowed, forbidden},
	"GET /vms/:id/screenshot":  {allowed, hidden, allowed, forbidden},
	"PATCH /vms/:id":           {allowed, hidden, forbidden, forbidden},
	"DELETE /vms/:id":          {allowed, hidden, forbidden, forbidden},
	"POST /vms/:id/power":      {allowed, hidden, forbidden, forbidden},
	"GET /events":              {allowed, hidden, allowed, forbidden},
	"GET /images":              {forbidden, forbidden, allowed, forbidden},
	"POST /images":             {forbidden, forbidden, forbidden, allowed},
	"GET /images/:checksum":    {forbidden, forbidden, allowed, allowed},
	"PATCH /images/:checksum":  {forbidden, forbidden, forbidden, forbidden},
	"DELETE /images/:checksum": {forbidden, forbidden, forbidden, forbidden},
	"GET /templates":           {forbidden, forbidden, allowed, forbidden},
	"DELETE /templates/:key":   {forbidden, forbidden, forbidden, forbidden},
	"GET /metrics":             {forbidden, forbidden, allowed, forbidden},
}

// requests are the query and the body with which a route is tried. ID stands for the machine's id.
var requests = map[string]struct{ query, body string }{
	"GET /healthz":            {"?verbose=1", ""},
	"DELETE /vms":             {"?label=none", ""},
	"PATCH /vms/:id":          {"", `{"expires_in": "1h"}`},
	"POST /vms/:id/power":     {"", `{"action": "on"}`},
	"GET /events":             {"?vm=ID", ""},
	"PATCH /images/:checksum": {"", `{"pinned": true}`},
}

// Each route of the API allows each scope what the decisions say, and has one.
func TestScopes(t *testing.T) {
	s := serveWithToken(t)
	for _, e := range s.endpoints() {
		name := e.Method + " " + e.Path
		want, decided := decisions[name]
		if !decided || len(e.Scopes) == 0 {
			t.Errorf("%s: nobody has decided which scopes allow it: see auth.go and the decisions of this test", name)
			continue
		}
		for _, c := range []struct{ token, owner, want string }{
			{"ci=own", "ci=create", want.own},
			{"ci=own", "other=create", want.others},
			{"monitor=read", "other=create", want.read},
			{"ci=create", "ci=create", want.create},
			{"ci=create,read", "other=create", either(want.create, want.read)},
			{"ci=read,own", "ci=create", either(want.read, want.own)},
			{"root=admin", "other=create", allowed},
			{secret, "other=create", allowed},
		} {
			if got := s.try(e.Method, e.Path, c.token, c.owner); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s with %s, at a machine of %s: got %s, want %s", name, c.token, c.owner, got, c.want)
			}
		}
	}
}

func either(a, b string) string {
	if a == allowed {
		return a
	}
	return b
}

type endpoint struct {
	Method, Path string
	Scopes       []string
}

// endpoints returns the router's own list of its routes.
func (s *testServer) endpoints() []endpoint {
	s.t.Helper()
	var index struct{ Endpoints []endpoint }
	must(s.t, json.Unmarshal([]byte(s.as(secret, "GET", "/", "").body), &index))
	return index.Endpoints
}

// try sends a request to a route with a token, at a new machine of an owner if the route has one, and returns the
// outcome.
func (s *testServer) try(method, path, token, owner string) string {
	s.t.Helper()
	q := requests[method+" "+path]
	if method+" "+path == "POST /vms" {
		q.body = s.bodyWith("memory", `"64mib"`)
	} else if method+" "+path == "POST /images" {
		q.body = fmt.Sprintf(`{"url": %q, "checksum": %q}`, s.image.URL, s.image.Checksum)
	}
	id := ""
	if strings.Contains(path+q.query, "ID") || strings.Contains(path, ":id") {
		id = s.createAs(owner).ID
	}
	target := strings.NewReplacer(":id", id, "ID", id, ":checksum", s.image.Checksum, ":key", "none").Replace(path + q.query)
	req, err := http.NewRequest(method, s.URL+target, strings.NewReader(q.body))
	must(s.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer res.Body.Close() // of a stream too
	var e vm.Error
	if res.StatusCode >= 400 {
		must(s.t, json.NewDecoder(res.Body).Decode(&e))
	}
	switch {
	case e.Code == "forbidden" && strings.Contains(e.Message, "scope "):
		return forbidden
	case e.Code == vm.CodeNotFound:
		return hidden
	case res.StatusCode < 400, slices.Contains([]vm.Code{vm.CodeNotSupported, vm.CodeTemplateNotFound, vm.CodeImageInUse}, e.Code):
		return allowed
	}
	return fmt.Sprintf("%d %s: %s", res.StatusCode, e.Code, e.Message)
}

// A token that may see machines of others and not change them is refused, and learns which scope is missing.
func TestVisibleIsNotChangeable(t *testing.T) {
	s := serveWithToken(t)
	v := s.createAs("other=create")
	a := s.as("ci=read,own", "DELETE", "/vms/"+v.ID, "")
	if a.status != http.StatusForbidden || a.Code != "forbidden" || !strings.Contains(a.Message, `needs the scope admin, and the token "ci" has only read and own`) {
		t.Errorf("got %d %s, want 403 and the missing scope", a.status, a.body)
	}
	if a := s.as("ci=read", "DELETE", "/vms/"+v.ID, ""); !strings.Contains(a.Message, `DELETE /vms/:id needs the scope own or admin, and the token "ci" has only read;`) {
		t.Errorf("got %s, want the missing scope", a.Message)
	}
}

// ids returns the machines in a list.
func (a answer) ids(t *testing.T) (ids []string) {
	t.Helper()
	var list struct{ VMs []vm.VM }
	must(t, json.Unmarshal([]byte(a.body), &list))
	for _, v := range list.VMs {
		ids = append(ids, v.ID)
	}
	return ids
}

// With the scope own, lists, labels, names, short ids, keys and events are those of the token's machines.
func TestOwnersAreSeparate(t *testing.T) {
	s := serveWithToken(t)
	const mine, others = "ci=create,own", "other=create,own"
	stream := s.openEvents("", "Authorization", "Bearer "+mine)
	if e := stream.next(); e.name != "hello" {
		t.Errorf("got %v, want hello", e)
	}
	b := s.createAs(others, "name", `"web"`, "labels", `{"job": "1"}`)
	a := s.createAs(mine, "name", `"database"`, "labels", `{"job": "1"}`)
	if a.Owner != "ci" || b.Owner != "other" {
		t.Errorf("got owners %q and %q, want ci and other", a.Owner, b.Owner)
	}
	for _, c := range []struct {
		token, query string
		want         []string
	}{
		{mine, "", []string{a.ID}},
		{mine, "?owner=other", nil},
		{mine, "?label=job=1", []string{a.ID}},
		{"ci=read,own", "", []string{b.ID, a.ID}},
		{"x=read", "?owner=other", []string{b.ID}},
		{"x=own", "", nil},
		{secret, "", []string{b.ID, a.ID}},
	} {
		if got := s.as(c.token, "GET", "/vms"+c.query, "").ids(t); !slices.Equal(got, c.want) {
			t.Errorf("%s lists %q %v, want %v", c.token, c.query, got, c.want)
		}
	}
	for _, ref := range []string{b.ID, b.ID[:8], "web", "wep"} {
		if got := s.as(mine, "GET", "/vms/"+ref, ""); got.status != http.StatusNotFound || strings.Contains(got.body, "did you mean") {
			t.Errorf("GET /vms/%s: got %d %s, want 404 that suggests nothing", ref, got.status, got.body)
		}
	}
	taken := s.as(mine, "POST", "/vms", s.bodyWith("name", `"web"`))
	if taken.Code != vm.CodeNameTaken || strings.Contains(taken.body, b.ID) || strings.Contains(taken.body, "other\"") {
		t.Errorf("a name of another owner: got %s, want %s without the machine", taken.body, vm.CodeNameTaken)
	}
	if got := s.as(mine, "POST", "/vms", s.bodyWith("name", `"database"`)); got.Code != vm.CodeNameTaken || !strings.Contains(got.body, a.ID) {
		t.Errorf("a name of the same owner: got %s, want %s with the machine", got.body, vm.CodeNameTaken)
	}
	if got := s.as(mine, "DELETE", "/vms?label=job", ""); !strings.Contains(got.body, a.ID) || strings.Contains(got.body, b.ID) {
		t.Errorf("DELETE /vms?label=job: got %s, want only %s", got.body, a.ID)
	}
	if got := s.as(secret, "GET", "/vms", "").ids(t); !slices.Equal(got, []string{b.ID}) {
		t.Errorf("after that: got %v, want %s", got, b.ID)
	}
	for e := stream.next(); e.name != "gone"; e = stream.next() {
		if !strings.Contains(e.data, a.ID) {
			t.Errorf("got event %s, want only those of %s", e.data, a.ID)
		}
	}
}

// Two owners can use the same Idempotency-Key, each for a machine of its own.
func TestKeysOfOwners(t *testing.T) {
	s := serveWithToken(t)
	create := func(token string) (v vm.VM) {
		a := s.as(token, "POST", "/vms", s.seedBody(), "Idempotency-Key", "k")
		must(t, json.Unmarshal([]byte(a.body), &v))
		return v
	}
	first, second, full := create("ci=create"), create("other=create"), create(secret)
	if first.ID == second.ID || first.ID == full.ID || second.ID == full.ID || first.ID == "" {
		t.Errorf("got machines %s, %s and %s, want different ones", first.ID, second.ID, full.ID)
	}
	if again := create("ci=create,read"); again.ID != first.ID {
		t.Errorf("again: got %s, want %s", again.ID, first.ID)
	}
	s.as(secret, "DELETE", "/vms/"+first.ID, "")
	if again := create("other=create"); again.ID != second.ID {
		t.Errorf("after the other key was freed: got %s, want %s", again.ID, second.ID)
	}
}

// An image can be read with the scope create if its whole checksum is known.
func TestImageByChecksum(t *testing.T) {
	s := serveWithToken(t)
	s.createAs(secret)
	sum := s.image.Checksum
	for ref, want := range map[string]int{sum: 200, "sha1-" + sum: 200, strings.ToUpper(sum): 200, sum[:20]: 403, sum[:4]: 403, "x": 403} {
		if a := s.as("ci=create", "GET", "/images/"+ref, ""); a.status != want {
			t.Errorf("GET /images/%s: got %d %s, want %d", ref, a.status, a.body, want)
		}
	}
}

// The quotas are exact, however many requests there are at once. Failed machines count, and destroyed ones do not.
func TestQuotas(t *testing.T) {
	s := config{
		api: api.Options{FindToken: findToken},
		vm: []func(*vm.Options){func(o *vm.Options) {
			o.Creations, o.PerOwner = 1000, vm.OwnerLimits{VMs: 5, MemoryMiB: 3072}
		}},
		unchecked: true,
	}.serve(t)
	release := s.blockCloning()
	var small, large int64
	var both sync.WaitGroup
	both.Go(func() { small = s.flood("ci=create", s.bodyWith("memory", `"512mib"`)) })
	both.Go(func() { large = s.flood("other=create", s.bodyWith("memory", `"1gib"`)) })
	both.Wait()
	if small != 5 || large != 3 {
		t.Errorf("got %d machines of 512 MiB and %d of 1 GiB, want the 5 of -vms-per-token and the 3 of -memory-per-token", small, large)
	}
	s.createAfterQuota(t)
	release()
}

// flood sends 500 requests for machines at once, and returns how many were accepted. The others are beyond the quota.
func (s *testServer) flood(token, body string) (accepted int64) {
	connections := &http.Transport{MaxConnsPerHost: 200}
	defer connections.CloseIdleConnections()
	var n atomic.Int64
	var all sync.WaitGroup
	for range 500 {
		all.Go(func() {
			req, err := http.NewRequest("POST", s.URL+"/vms", strings.NewReader(body))
			must(s.t, err)
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := connections.RoundTrip(req)
			if err != nil {
				s.t.Error(err)
				return
			}
			defer res.Body.Close()
			var e vm.Error
			if res.StatusCode == http.StatusAccepted {
				n.Add(1)
			} else if err := json.NewDecoder(res.Body).Decode(&e); err != nil || res.StatusCode != http.StatusTooManyRequests || e.Code != vm.CodeQuota || res.Header.Get("Retry-After") == "" || !strings.Contains(e.Message, "-per-token") {
				s.t.Errorf("got %d %v, %v, want 202 or 429 %s", res.StatusCode, e, err, vm.CodeQuota)
			}
		})
	}
	all.Wait()
	return n.Load()
}

// createAfterQuota checks that tokens without a name have no quota, and that a destroyed machine leaves room.
func (s *testServer) createAfterQuota(t *testing.T) {
	t.Helper()
	if a := s.as(secret, "POST", "/vms", s.bodyWith("memory", `"64mib"`)); a.status != http.StatusAccepted {
		t.Errorf("a token without a name: got %d %s, want 202", a.status, a.body)
	}
	ids := s.as(secret, "GET", "/vms?owner=ci", "").ids(t)
	if a := s.as(secret, "DELETE", "/vms/"+ids[0], ""); a.status != http.StatusNoContent {
		t.Errorf("DELETE: got %d %s, want 204", a.status, a.body)
	}
	for _, want := range []int{http.StatusAccepted, http.StatusTooManyRequests} {
		if a := s.as("ci=create", "POST", "/vms", s.bodyWith("memory", `"64mib"`)); a.status != want {
			t.Errorf("after a machine was destroyed: got %d %s, want %d", a.status, a.body, want)
		}
	}
	status, text := s.text("/metrics", "Authorization", "Bearer "+secret)
	if status != http.StatusOK {
		t.Errorf("GET /metrics: got %d", status)
	}
	checkMetrics(t, text, `osx_builder_owner_vms{owner="ci"} 5`, `osx_builder_owner_vms{owner="other"} 3`, `osx_builder_owner_memory_promised_bytes{owner="other"} 3.221225472e+09`,
		`osx_builder_owner_vms_limit 5`, `osx_builder_owner_memory_limit_bytes 3.221225472e+09`, `osx_builder_token_requests_total{status="202",token="ci"} 6`)
	if strings.Contains(text, secret) {
		t.Errorf("the metrics contain a token: %s", text)
	}
}

// The log has the name of each request's token.
func TestTokenInLog(t *testing.T) {
	s, log := serveWithLog(t)
	v := s.createAs("ci=create")
	if got := log.find(t, "creating", v.ID)["owner"]; got != "ci" {
		t.Errorf("the machine's line has owner %v, want ci", got)
	}
	for deadline := time.Now().Add(harness.Timeout); !strings.Contains(log.String(), `"token":"ci"`); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no line of a request has the token's name: %s", log)
		}
	}
	if strings.Contains(log.String(), "ci=create") || strings.Contains(log.String(), secret) {
		t.Errorf("the log contains a token: %s", log)
	}
}
