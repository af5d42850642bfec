package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"osx-builder/vm"
)

// Each path with an id also takes a machine's name and the start of its id.
func TestNamesInPaths(t *testing.T) {
	s := serve(t)
	a := s.do("POST", "/vms", s.bodyWith("name", `"web"`))
	var v vm.VM
	must(t, json.Unmarshal([]byte(a.body), &v))
	if v.Name != "web" || a.header.Get("Location") != "/vms/"+v.ID {
		t.Fatalf("got %s", a.body)
	}
	for _, ref := range []string{"web", v.ID[:4], v.ID} {
		for _, c := range []struct{ method, path, body string }{
			{"GET", "?wait=1m", ""},
			{"HEAD", "", ""},
			{"PATCH", "", `{"expires_in": "1h"}`},
			{"POST", "/power", `{"action": "on"}`},
			{"GET", "/console", ""},
			{"GET", "/screenshot", ""},
		} {
			if res, body := s.rawBody(c.method, "/vms/"+ref+c.path, c.body); res.StatusCode != http.StatusOK {
				t.Errorf("%s /vms/%s%s: got %d %s, want 200", c.method, ref, c.path, res.StatusCode, body)
			}
		}
		s.openEvents("?vm=" + ref)
	}
	a = s.do("POST", "/vms", s.bodyWith("name", `"web"`))
	if a.status != http.StatusConflict || a.Code != vm.CodeNameTaken || a.Field != "name" {
		t.Errorf("the name again: got %d %s, field %q, want 409 %s, name", a.status, a.Code, a.Field, vm.CodeNameTaken)
	}
	if a := s.do("GET", "/vms/wen", ""); a.status != http.StatusNotFound || !strings.Contains(a.Message, "did you mean web?") {
		t.Errorf("a similar name: got %d %s, want 404 with a suggestion", a.status, a.body)
	}
	if a := s.do("DELETE", "/vms/web", ""); a.status != http.StatusNoContent {
		t.Errorf("DELETE: got %d %s, want 204", a.status, a.body)
	}
}

// One answer lists all fields that are unknown, of a wrong type, missing or invalid.
func TestAllInvalidFields(t *testing.T) {
	s := serve(t)
	a := s.do("POST", "/vms", `{"cpu": 1, "cpus": "2", "CPUS": [], "memory": "1gb", "tools_init_timeout": "soon", "image": {"size": 1, "url": 7}, "forward": ["a"], "Name": "A"}`)
	var e vm.Error
	must(t, json.Unmarshal([]byte(a.body), &e))
	var got []string
	for _, each := range e.Errors {
		got = append(got, each.Field+": "+each.Message)
	}
	want := []string{
		`cpu: there is no field "cpu"; the fields are `,
		`cpus: cpus is a JSON string; it must be a whole number`,
		`cpus: cpus is a JSON list; it must be a whole number`,
		`tools_init_timeout: tools_init_timeout is "soon"; it must be a whole number of seconds or a duration such as "30s", at most 1h`,
		`image.size: there is no field "image.size"; the fields are `,
		`image.url: image.url is 7; it must be a string`,
		`forward: forward is a JSON list; it must be a list of whole numbers`,
		`memory: memory is "1gb"; it must be a size in IEC units`,
		`image.checksum: image.checksum is missing; it must be the archive's checksum in hex`,
		`name: name is "A"; it must be 1 to 63 lower-case letters`,
	}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("error %d: got %q, want %q", i, got[i], want[i])
		}
	}
	if a.status != http.StatusBadRequest || e.Code != vm.CodeUnknownField || e.Field != "cpu" || e.Message != e.Errors[0].Message {
		t.Errorf("got %d %s %q %q, want those of the first error", a.status, e.Code, e.Field, e.Message)
	}
	if a := s.do("POST", "/vms/x/power", `{}`); a.status != http.StatusNotFound {
		t.Errorf("power of no machine: got %d", a.status)
	}
}

// A path with a slash at the end is redirected with its method and its query.
func TestTrailingSlash(t *testing.T) {
	s := serve(t)
	for path, want := range map[string]string{
		"/vms/": "/vms", "/vms/?phase=ready": "/vms?phase=ready", "/vms/a%2fb//?wait=1s": "/vms/a%2fb?wait=1s", "/vms/web/power/": "/vms/web/power",
		"/images/": "/images",
	} {
		for _, method := range []string{"GET", "POST"} {
			res, _ := s.rawBody(method, path, "")
			if got := res.Header.Get("Location"); res.StatusCode != http.StatusPermanentRedirect || got != want {
				t.Errorf("%s %s: got %d, Location %q, want 308, %q", method, path, res.StatusCode, got, want)
			}
		}
	}
}
