package api_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
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
		`",\s+"bytes": [1-9]\d*,\s+"disk_bytes": \d+,\s+"created_at": "[^"]+Z",\s+"last_used_at": "[^"]+Z",\s+"vms": 1,\s+"phase": "ready",\s+"pinned": false\s+}\s+]\s+}\s+$`)
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
		{"GET", "/images/" + s.image.Checksum, http.StatusNotFound, vm.CodeImageNotFound},
		{"PUT", "/images/" + s.image.Checksum, http.StatusMethodNotAllowed, "method-not-allowed"},
	} {
		if a := s.do(c.method, c.path, ""); a.status != c.status || a.Code != c.code {
			t.Errorf("%s %s: got %d %s, want %d %s", c.method, c.path, a.status, a.Code, c.status, c.code)
		}
	}
}

// An image is pulled, read while and after that, pinned, and removed.
func TestPullImage(t *testing.T) {
	s := serve(t)
	body := fmt.Sprintf(`{"url": %q, "checksum": "SHA1:%s"}`, s.image.URL, strings.ToUpper(s.image.Checksum))
	a := s.do("POST", "/images?wait=1m", body)
	path := "/images/sha1-" + s.image.Checksum
	if a.status != http.StatusAccepted || a.header.Get("Location") != path || !strings.Contains(a.body, `"phase": "ready"`) {
		t.Fatalf("got %d, Location %q, %s, want 202, %s and the image ready", a.status, a.header.Get("Location"), a.body, path)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		code               vm.Code
		want               string
	}{
		{"POST", "/images", body, http.StatusAccepted, "", `"phase": "ready"`},
		{"GET", path, "", http.StatusOK, "", `"pinned": false`},
		{"GET", "/images/" + s.image.Checksum[:6] + "?wait=1s", "", http.StatusOK, "", `"vms": 0`},
		{"PATCH", path, `{"pinned": true}`, http.StatusOK, "", `"pinned": true`},
		{"PATCH", path, `{}`, http.StatusBadRequest, vm.CodeInvalidField, "pinned is missing"},
		{"PATCH", path, `{"pinned": "yes"}`, http.StatusBadRequest, vm.CodeInvalidField, "true or false"},
		{"PATCH", path, `{"pinned": true, "size": 1}`, http.StatusBadRequest, vm.CodeUnknownField, "size"},
		{"POST", "/images", `{}`, http.StatusBadRequest, vm.CodeInvalidField, "url is missing"},
		{"POST", "/images", `{"image": {}}`, http.StatusBadRequest, vm.CodeUnknownField, "the fields are url, checksum, checksum_type"},
		{"POST", "/images?wait=x", body, http.StatusBadRequest, vm.CodeInvalidField, "wait"},
		{"DELETE", path, "", http.StatusNoContent, "", ""},
		{"PATCH", path, `{"pinned": true}`, http.StatusNotFound, vm.CodeImageNotFound, ""},
	} {
		if a := s.do(c.method, c.path, c.body); a.status != c.status || a.Code != c.code || !strings.Contains(a.body, c.want) {
			t.Errorf("%s %s %s: got %d %s, want %d %s and %q", c.method, c.path, c.body, a.status, a.body, c.status, c.code, c.want)
		}
	}
}
