package api_test

import (
	"encoding/json"
	"net/http"
	"slices"
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
