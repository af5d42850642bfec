package api_test

import (
	"net/http"
	"strings"
	"testing"
)

// An error shows the start of a long value, but does not repeat all of it.
func TestErrorsAreShort(t *testing.T) {
	s := serve(t)
	const largest = 2500 // bytes of an answer
	path, _ := s.readyMachine()
	long := strings.Repeat("x", 100_000)
	digits := strings.Repeat("9", 100_000)
	requests := map[string]func() answer{
		"unknown field":   func() answer { return s.do("POST", "/vms", `{"`+long+`": 1}`) },
		"number":          func() answer { return s.do("POST", "/vms", s.bodyWith("memory", digits)) },
		"large integer":   func() answer { return s.do("POST", "/vms", s.bodyWith("cpus", digits)) },
		"type":            func() answer { return s.do("POST", "/vms", s.bodyWith("image.checksum_type", `"`+long+`"`)) },
		"forward":         func() answer { return s.do("POST", "/vms", s.bodyWith("forward", `[`+digits+`]`)) },
		"not JSON":        func() answer { return s.do("POST", "/vms", long) },
		"action":          func() answer { return s.do("POST", path+"/power", `{"action": "`+long+`"}`) },
		"lifetime":        func() answer { return s.do("PATCH", path, `{"expires_in": "`+long+`"}`) },
		"lifetime number": func() answer { return s.do("PATCH", path, `{"expires_in": `+digits+`}`) },
		"path":            func() answer { return s.do("GET", "/"+long[:50_000], "") },
		"machine":         func() answer { return s.do("GET", "/vms/"+long[:50_000], "") },
		"image":           func() answer { return s.do("DELETE", "/images/"+long[:50_000], "") },
		"method":          func() answer { return s.do(long[:50_000], "/vms", "") },
		"parameter":       func() answer { return s.do("GET", "/vms?phase="+long[:50_000], "") },
		"wait":            func() answer { return s.do("GET", path+"?wait="+long[:50_000], "") },
		"key":             func() answer { return s.do("POST", "/vms", s.seedBody(), "Idempotency-Key", long[:50_000]) },
		"media type":      func() answer { return s.do("POST", "/vms", s.seedBody(), "Content-Type", long[:50_000]) },
	}
	for _, field := range []string{
		"cpus", "memory", "network_type", "image", "image.url", "image.checksum", "launch_gui", "callback_url", "tools_init_timeout",
		"expires_in", "forward",
	} {
		requests[field] = func() answer { return s.do("POST", "/vms", s.bodyWith(field, `"`+long+`"`)) }
	}
	for name, send := range requests {
		a := send()
		if a.status < http.StatusBadRequest || len(a.body) > largest {
			t.Errorf("%s: got %d and %d bytes, want an error of at most %d bytes: %.300s", name, a.status, len(a.body), largest, a.body)
		}
	}
}
