package api_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"osx-builder/vm"
)

// GET /healthz?verbose=1 lists the networks, and why some are not available.
func TestHealthListsNetworks(t *testing.T) {
	s := serve(t)
	a := s.do("GET", "/healthz?verbose=1", "")
	var got struct {
		Networks map[vm.NetworkType]vm.NetworkState
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
		t.Fatalf("got %d %s (%v)", a.status, a.body, err)
	}
	if nat := got.Networks[vm.NAT]; !nat.Available || nat.Reason != "" {
		t.Errorf("got %+v for nat, want that it is available", nat)
	}
	if bridged := got.Networks[vm.Bridged]; bridged.Available || !strings.Contains(bridged.Reason, "needs a host with networks") {
		t.Errorf("got %+v for bridged, want the reason why it is not available", bridged)
	}
	if a := s.do("GET", "/healthz", ""); strings.Contains(a.body, "networks") {
		t.Errorf("without verbose: got %s, want no networks", a.body)
	}
	if a := s.do("GET", "/healthz?verbose=loud", ""); a.status != 400 || !strings.Contains(a.body, `"verbose"`) {
		t.Errorf("verbose=loud: got %d %s, want 400 and the field", a.status, a.body)
	}
}

// forward is a list of port numbers. The error of any other value names the field.
func TestForwardField(t *testing.T) {
	s := serve(t)
	for value, status := range map[string]int{
		`[22, 8080]`: 202, `[]`: 202, `null`: 202,
		`22`: 400, `"22"`: 400, `["22"]`: 400, `[22.5]`: 400, `[0]`: 400, `[22, 22]`: 400, `[[22]]`: 400,
	} {
		a := s.do("POST", "/vms", s.bodyWith("forward", value))
		if a.status != status {
			t.Errorf("forward %s: got %d %s, want %d", value, a.status, a.body, status)
		}
		var e vm.Error
		if err := json.Unmarshal([]byte(a.body), &e); err != nil {
			t.Fatal(err)
		}
		if status == 400 && (!strings.HasPrefix(e.Field, "forward") || e.Code != vm.CodeInvalidField) {
			t.Errorf("forward %s: got %s, want %s and the field", value, a.body, vm.CodeInvalidField)
		}
		if words := []string{`22`, `"22"`}; slices.Contains(words, value) && !strings.Contains(e.Message, "a list") {
			t.Errorf("forward %s: got message %q, want that it must be a list", value, e.Message)
		}
	}
}
