package api_test

import (
	"net/http"
	"regexp"
	"testing"

	"osx-builder/vm"
)

// Images are listed with the machines that use them. Only unused images can be removed.
func TestImages(t *testing.T) {
	s := serve(t)
	if a := s.do("GET", "/images", ""); a.status != http.StatusOK || a.body != "{\n  \"images\": []\n}\n" {
		t.Errorf("with none: got %d %s", a.status, a.body)
	}
	id := regexp.MustCompile(`"id": "([^"]+)"`).FindStringSubmatch(s.do("POST", "/vms", s.seedBody()).body)[1]
	s.do("GET", "/vms/"+id+"?wait=1m", "")
	want := regexp.MustCompile(`(?s)^{\s+"images": \[\s+{\s+"checksum": "` + s.image.Checksum + `",\s+"checksum_type": "sha1",\s+"url": "` + regexp.QuoteMeta(s.image.URL) +
		`",\s+"bytes": [1-9]\d*,\s+"disk_bytes": \d+,\s+"created_at": "[^"]+Z",\s+"last_used_at": "[^"]+Z",\s+"vms": 1\s+}\s+]\s+}\s+$`)
	if a := s.do("GET", "/images", ""); a.status != http.StatusOK || !want.MatchString(a.body) {
		t.Errorf("with one: got %d %s", a.status, a.body)
	}
	if a := s.do("DELETE", "/images/"+s.image.Checksum, ""); a.status != http.StatusConflict || a.Code != vm.CodeImageInUse {
		t.Errorf("while in use: got %d %s, want 409 %s", a.status, a.Code, vm.CodeImageInUse)
	}
	s.do("DELETE", "/vms/"+id, "")
	for _, c := range []struct {
		method, path string
		status       int
		code         vm.Code
	}{
		{"DELETE", "/images/" + s.image.Checksum, http.StatusNoContent, ""},
		{"DELETE", "/images/sha1-" + s.image.Checksum, http.StatusNotFound, vm.CodeImageNotFound},
		{"DELETE", "/images/nonsense", http.StatusBadRequest, vm.CodeInvalidField},
		{"DELETE", "/images/..%2f" + s.image.Checksum, http.StatusNotFound, "not-found"},
		{"DELETE", "/images", http.StatusMethodNotAllowed, "method-not-allowed"},
		{"GET", "/images/" + s.image.Checksum, http.StatusMethodNotAllowed, "method-not-allowed"},
	} {
		if a := s.do(c.method, c.path, ""); a.status != c.status || a.Code != c.code {
			t.Errorf("%s %s: got %d %s, want %d %s", c.method, c.path, a.status, a.Code, c.status, c.code)
		}
	}
}
