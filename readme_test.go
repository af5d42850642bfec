package main_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"testing"

	"osx-builder/vm"
)

// README's request is taken as it stands there, but for the addresses and the
// memory, and its two answers have the fields that real ones have, in order.
func TestReadmeExamples(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(readFile(t, "README.md"), -1)
	if len(blocks) != 3 {
		t.Fatalf("README has %d blocks of JSON, want the request and two answers", len(blocks))
	}
	s := newStage(t)
	i := s.image(tinyvm)
	var q map[string]any
	must(t, json.Unmarshal([]byte(blocks[0][1]), &q))
	q["image"].(map[string]any)["url"] = i.URL
	q["image"].(map[string]any)["checksum"] = i.SHA256
	q["callback_url"] = s.site.CallbackURL()
	q["memory"] = "256mib"
	body, err := json.Marshal(q)
	must(t, err)
	a, err := s.Do("POST", "/vms", "application/x-www-form-urlencoded", body)
	must(t, err)
	if a.Status != http.StatusAccepted {
		t.Fatalf("got %d %s, want 202", a.Status, a.Body)
	}
	var v vm.VM
	must(t, a.JSON(&v))
	sameFields(t, "the answer to POST", string(a.Body), blocks[1][1])
	s.ready(v.ID)
	s.callback()
	a, err = s.Do("GET", "/vms/"+v.ID, "", nil)
	must(t, err)
	sameFields(t, "the answer to GET", string(a.Body), blocks[2][1])
	s.destroy(v.ID)
}

// sameFields compares the fields of two indented documents.
func sameFields(t *testing.T, what, got, want string) {
	t.Helper()
	name := regexp.MustCompile(`(?m)^ *"[a-z_]+":`)
	if g, w := name.FindAllString(got, -1), name.FindAllString(want, -1); !slices.Equal(g, w) {
		t.Errorf("%s has %q, README says %q", what, g, w)
	}
}

// The diagram of a machine's life has every phase, and no other.
func TestReadmeDiagram(t *testing.T) {
	diagram := regexp.MustCompile("(?s)```mermaid\n(.*?)```").FindString(readFile(t, "README.md"))
	told := make(map[vm.Phase]bool)
	for _, m := range regexp.MustCompile(`(?m)^\s+(\S+) --> ([^:\s]+)`).FindAllStringSubmatch(diagram, -1) {
		for _, word := range m[1:] {
			told[vm.Phase(word)] = true
		}
	}
	delete(told, "[*]")
	delete(told, "making")
	for _, p := range vm.Phases() {
		if !told[p] {
			t.Errorf("the diagram does not show %s", p)
		}
		delete(told, p)
	}
	if len(told) > 0 {
		t.Errorf("the diagram shows %v, which are no phases", told)
	}
}
