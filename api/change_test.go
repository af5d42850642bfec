package api_test

import (
	"net/http"
	"regexp"
	"testing"
	"time"

	"osx-builder/vm"
)

// POST sets a machine's lifetime and PATCH changes it. The document contains the time of expiry.
func TestExpiry(t *testing.T) {
	s := serve(t, func(o *vm.Options) { o.MaxLifetime = 24 * time.Hour })
	a := s.do("POST", "/vms", s.bodyWith("expires_in", `"90m"`))
	id := regexp.MustCompile(`"id": "([^"]+)"`).FindStringSubmatch(a.body)[1]
	if a.status != http.StatusAccepted || !regexp.MustCompile(`"expires_at": "[^"]+Z"`).MatchString(a.body) {
		t.Errorf("POST: got %d %s, want 202 with expires_at", a.status, a.body)
	}
	if a = s.do("PATCH", "/vms/"+id, `{"expires_in": 7200,}`); a.status != http.StatusOK || !regexp.MustCompile(`"expires_at": "[^"]+Z"`).MatchString(a.body) {
		t.Errorf("PATCH: got %d %s, want 200 and the document", a.status, a.body)
	}
	for name, c := range map[string]struct {
		id, body string
		status   int
		code     vm.Code
		field    string
	}{
		"nothing to change":  {id, `{}`, 400, vm.CodeInvalidField, "expires_in"},
		"zero":               {id, `{"expires_in": 0}`, 400, vm.CodeInvalidField, "expires_in"},
		"negative":           {id, `{"expires_in": "-5m"}`, 400, vm.CodeInvalidField, "expires_in"},
		"too long":           {id, `{"expires_in": "24h"}`, 400, vm.CodeInvalidField, "expires_in"},
		"overflow":           {id, `{"expires_in": 1e300}`, 400, vm.CodeInvalidField, "expires_in"},
		"text":               {id, `{"expires_in": "soon"}`, 400, vm.CodeInvalidField, "expires_in"},
		"an object":          {id, `{"expires_in": {}}`, 400, vm.CodeInvalidField, "expires_in"},
		"another field":      {id, `{"cpus": 4}`, 400, vm.CodeUnknownField, "cpus"},
		"array":              {id, `[]`, 400, vm.CodeInvalidField, ""},
		"two documents":      {id, `{"expires_in": 1}{}`, 400, "trailing-data", ""},
		"not JSON":           {id, `expires_in=1`, 415, "invalid-json", ""},
		"no such machine":    {"282ee68a-2e4d-4bd7-9c0e-7f37e12fc489", `{"expires_in": 60}`, 404, vm.CodeNotFound, ""},
		"not an id":          {"x", `{"expires_in": 60}`, 404, vm.CodeNotFound, ""},
		"a body of 2 MiB":    {id, `{"expires_in": 60}` + string(make([]byte, 2<<20)), 413, "body-too-large", ""},
		"creation too long ": {"", `"25h"`, 400, vm.CodeInvalidField, "expires_in"},
	} {
		if c.id == "" {
			a = s.do("POST", "/vms", s.bodyWith("expires_in", c.body))
		} else {
			a = s.do("PATCH", "/vms/"+c.id, c.body)
		}
		if a.status != c.status || a.Code != c.code || a.Field != c.field {
			t.Errorf("%s: got %d %s, field %q, want %d %s, %q", name, a.status, a.Code, a.Field, c.status, c.code, c.field)
		}
	}
}

// A full host returns no-capacity and Retry-After.
func TestNoCapacity(t *testing.T) {
	s := serve(t, func(o *vm.Options) { o.VMs = 1 })
	s.do("POST", "/vms", s.seedBody())
	a := s.do("POST", "/vms", s.seedBody())
	if a.status != http.StatusServiceUnavailable || a.Code != vm.CodeNoCapacity || a.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s, Retry-After %q, want 503 %s with Retry-After", a.status, a.Code, a.header.Get("Retry-After"), vm.CodeNoCapacity)
	}
}
