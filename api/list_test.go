package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
)

// list returns the IDs in the answer of GET /vms.
func (s *testServer) list(query string) (ids []string) {
	s.t.Helper()
	a := s.do("GET", "/vms"+query, "")
	var d struct{ VMs []struct{ ID string } }
	if a.status != http.StatusOK {
		s.t.Fatalf("GET /vms%s: got %d %s", query, a.status, a.body)
	}
	must(s.t, json.Unmarshal([]byte(a.body), &d))
	for _, v := range d.VMs {
		ids = append(ids, v.ID)
	}
	return ids
}

// The list is oldest first, with and without filters.
func TestListFilters(t *testing.T) {
	s := serve(t)
	var all []string
	for n := range 5 {
		_, m := s.readyMachine()
		all = append(all, m.ID)
		if n%2 == 1 {
			must(t, s.driver.SetPower(m, vm.PoweredOff))
		}
	}
	off := []string{all[1], all[3]}
	on := []string{all[0], all[2], all[4]}
	for query, want := range map[string][]string{
		"": all, "?phase=ready": all, "?phase=failed": nil, "?status=powered-off": off,
		"?status=powered-on": on, "?phase=ready&status=powered-off": off, "?phase=failed&status=powered-off": nil,
	} {
		for range 3 {
			if got := s.list(query); !slices.Equal(got, want) {
				t.Errorf("GET /vms%s: got %v, want %v", query, got, want)
			}
		}
	}
}

// Labels select machines for lists and for DELETE, which needs one.
func TestLabels(t *testing.T) {
	s := serve(t)
	body := func(labels string) string {
		return fmt.Sprintf(`{"labels": %s, "image": {"url": %q, "checksum": %q}}`, labels, s.image.URL, s.image.Checksum)
	}
	created := s.do("POST", "/vms", body(`{"job": "1"}`))
	id := regexp.MustCompile(`"id": "([^"]+)"`).FindStringSubmatch(created.body)[1]
	s.do("POST", "/vms", body(`null`))
	for _, c := range []struct {
		method, path, body string
		status             int
		code               vm.Code
		want               string
	}{
		{"GET", "/vms?label=job=1&label=job", "", http.StatusOK, "", id},
		{"GET", "/vms?label=job=2", "", http.StatusOK, "", `"vms": []`},
		{"GET", "/vms?label=", "", http.StatusBadRequest, vm.CodeInvalidField, "label"},
		{"GET", "/vms?label=a%20b", "", http.StatusBadRequest, vm.CodeInvalidField, "as in job=1234"},
		{"POST", "/vms", body(`["job"]`), http.StatusBadRequest, vm.CodeInvalidField, "labels is a JSON list; it must be an object"},
		{"POST", "/vms", body(`{"a b": "1"}`), http.StatusBadRequest, vm.CodeInvalidField, "a b"},
		{"DELETE", "/vms", "", http.StatusBadRequest, vm.CodeInvalidField, "label is missing"},
		{"DELETE", "/vms?label=job=2", "", http.StatusOK, "", `"ids": []`},
		{"DELETE", "/vms?label=job=1", "", http.StatusOK, "", id},
		{"GET", "/vms/" + id, "", http.StatusNotFound, vm.CodeNotFound, ""},
	} {
		if a := s.do(c.method, c.path, c.body); a.status != c.status || a.Code != c.code || !strings.Contains(a.body, c.want) {
			t.Errorf("%s %s: got %d %s, want %d %s and %q", c.method, c.path, a.status, a.body, c.status, c.code, c.want)
		}
	}
}
