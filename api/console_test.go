package api_test

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"osx-builder/api"
	"osx-builder/vm"
)

// readyMachine creates a machine, waits until it is ready, and returns its path and the driver's view of it.
func (s *testServer) readyMachine() (path string, m vm.Machine) {
	s.t.Helper()
	path = s.do("POST", "/vms", s.seedBody()).header.Get("Location")
	if a := s.do("GET", path+"?wait=1m", ""); !strings.Contains(a.body, `"phase": "ready"`) {
		s.t.Fatalf("got %s, want a ready machine", a.body)
	}
	id := strings.TrimPrefix(path, "/vms/")
	return path, vm.Machine{ID: id, Dir: filepath.Join(s.dir, id)}
}

func TestConsole(t *testing.T) {
	s := serve(t)
	path, m := s.readyMachine()
	must(t, s.driver.WriteConsole(m, "hello\nworld\n"))
	for query, want := range map[string]string{"": "hello\nworld\n", "?tail=6": "world\n", "?tail=1048576&follow=0": "hello\nworld\n"} {
		res := s.open(path + "/console" + query)
		b, err := io.ReadAll(res.Body)
		must(t, err)
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" || string(b) != want {
			t.Errorf("console%s: got %d %s %q, want %q", query, res.StatusCode, res.Header.Get("Content-Type"), b, want)
		}
	}
	res := s.open(path + "/console?follow=1&tail=6")
	for _, word := range []string{"world\n", "again\n"} {
		b := make([]byte, len(word))
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != word {
			t.Errorf("followed: got %q, %v, want %q", b, err, word)
		}
		must(t, s.driver.WriteConsole(m, "again\n"))
	}
	s.do("DELETE", path, "")
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Errorf("after DELETE: got %v, want the end of the answer", err)
	}
	for query, c := range map[string]struct {
		status int
		field  string
	}{
		"?tail=0": {400, "tail"}, "?tail=1048577": {400, "tail"}, "?tail=x": {400, "tail"}, "?follow=on": {400, "follow"}, "": {404, ""},
	} {
		if a := s.do("GET", path+"/console"+query, ""); a.status != c.status || a.Field != c.field {
			t.Errorf("console%s: got %d %q, want %d %q", query, a.status, a.Field, c.status, c.field)
		}
	}
}

// A client that follows a console without output gets the answer's header at once.
func TestFollowSilentConsole(t *testing.T) {
	s := serve(t)
	path, m := s.readyMachine()
	res := s.open(path + "/console?follow=1") // returns once it has the header
	must(t, s.driver.WriteConsole(m, "x"))
	if b, err := io.ReadAll(io.LimitReader(res.Body, 1)); err != nil || string(b) != "x" {
		t.Errorf("got %q, %v, want x", b, err)
	}
}

// The answer to a client that reads too slowly breaks. It does not end normally, which would look like the whole
// console.
func TestSlowConsoleReader(t *testing.T) {
	log := &jsonLog{}
	s := config{api: api.Options{Log: slog.New(slog.NewJSONHandler(log, nil))}}.serve(t)
	path, m := s.readyMachine()
	must(t, s.driver.WriteConsole(m, "x"))
	res := s.open(path + "/console?follow=1")
	_, err := io.ReadFull(res.Body, make([]byte, 1))
	must(t, err)
	// At once: a reader that sees a part of it may keep up.
	must(t, os.Truncate(filepath.Join(m.Dir, "serial.log"), vm.ConsoleKept+2))
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the answer ended normally, want a broken connection")
	}
	s.Server.Close() // so that the log is complete
	if !strings.Contains(log.String(), "slow console reader disconnected") || strings.Contains(log.String(), "panic") {
		t.Errorf("the log is %s, want the slow reader, and no panic", log)
	}
}
