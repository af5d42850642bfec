package api_test

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest"
	"osx-builder/vm/vmtest/harness"
)

func (s *testServer) powerAction(path, action string) answer {
	s.t.Helper()
	return s.do("POST", path+"/power", `{"action": "`+action+`"}`)
}

// Every action in every state either succeeds, or returns a conflict that lists the allowed actions.
func TestPowerActions(t *testing.T) {
	s := serve(t)
	path, m := s.readyMachine()
	const on, off, suspended, paused, blocked = vm.PoweredOn, vm.PoweredOff, vm.Suspended, vm.Paused, vm.Blocked
	for action, results := range map[string]map[vm.Power]vm.Power{
		"on":       {on: on, off: on},
		"off":      {on: off, off: off, suspended: off, paused: off, blocked: off, vm.PoweringOn: off},
		"shutdown": {on: off, off: off},
		"reset":    {on: on, paused: on, blocked: on},
		"suspend":  {on: suspended, suspended: suspended},
		"resume":   {on: on, suspended: on, paused: on},
	} {
		for _, from := range []vm.Power{on, off, suspended, paused, blocked, vm.PoweringOn, vm.Suspending} {
			must(t, s.driver.SetPower(m, from))
			a := s.powerAction(path, action)
			to, allowed := results[from]
			switch {
			case action == "off" && from == vm.Suspending:
			case allowed && (a.status != http.StatusOK || !strings.Contains(a.body, `"status": "`+string(to)+`"`)):
				t.Errorf("%s while %s: got %d %s, want 200 and %s", action, from, a.status, a.body, to)
			case !allowed && (a.status != http.StatusConflict || a.Code != vm.CodePower || !strings.Contains(a.Message, string(from)) || !strings.Contains(a.Message, "it allows ")):
				t.Errorf("%s while %s: got %d %s, want 409 with the state and what it allows", action, from, a.status, a.body)
			}
		}
	}
}

// Unknown actions, and actions on a machine that does not exist, are refused.
func TestPowerRequests(t *testing.T) {
	s := serve(t)
	path, _ := s.readyMachine()
	for body, want := range map[string]struct {
		status int
		code   vm.Code
		field  string
	}{
		`{"action": "explode"}`:                {400, vm.CodeInvalidField, "action"},
		`{}`:                                   {400, vm.CodeInvalidField, "action"},
		`{"action": 1}`:                        {400, vm.CodeInvalidField, "action"},
		`{"action": "off", "force": 1}`:        {400, vm.CodeUnknownField, "force"},
		`off`:                                  {415, "invalid-json", ""},
		"{\"action\": \"suspend\", } // sic\n": {200, "", ""},
	} {
		if a := s.do("POST", path+"/power", body); a.status != want.status || a.Code != want.code || a.Field != want.field {
			t.Errorf("%s: got %d %s %q, want %d %s %q", body, a.status, a.Code, a.Field, want.status, want.code, want.field)
		}
	}
	s.do("DELETE", path, "")
	if a := s.powerAction(path, "on"); a.status != http.StatusNotFound || a.Code != vm.CodeNotFound {
		t.Errorf("after DELETE: got %d %s, want 404", a.status, a.Code)
	}
}

// One goroutine changes a machine at a time: a power action waits for another one, is refused while the machine is
// created or destroyed, and is cancelled by DELETE.
func TestPowerIsExclusive(t *testing.T) {
	s := serve(t)
	created, destroyed := make(chan bool), make(chan bool)
	started := make(chan bool, 1)
	var once sync.Once
	s.driver.Hook = func(ctx context.Context, step vmtest.Step, _ vm.Machine) error {
		switch step {
		case vmtest.Clone:
			<-created
		case vmtest.Destroy:
			<-destroyed
		case vmtest.Power:
			first := false
			once.Do(func() { first = true })
			if first {
				started <- true
				<-ctx.Done()
				return ctx.Err()
			}
		}
		return nil
	}
	path := s.do("POST", "/vms", s.seedBody()).header.Get("Location")
	if a := s.powerAction(path, "off"); a.status != http.StatusConflict || a.Code != vm.CodePower || !strings.Contains(a.Message, "being created") {
		t.Errorf("during creation: got %d %s, want 409 %s", a.status, a.body, vm.CodePower)
	}
	close(created)
	s.do("GET", path+"?wait=1m", "")
	answers := make(chan answer, 3)
	go func() { answers <- s.powerAction(path, "suspend") }()
	<-started
	go func() { answers <- s.powerAction(path, "off") }()
	go func() { answers <- s.do("DELETE", path, "") }()
	for deadline := time.Now().Add(harness.Timeout); !strings.Contains(s.do("GET", path, "").body, "destroying"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the machine is not being destroyed")
		}
	}
	for range 2 {
		if a := <-answers; a.status != http.StatusConflict || a.Code != vm.CodeDestroying {
			t.Errorf("during destruction: got %d %s, want 409 %s", a.status, a.body, vm.CodeDestroying)
		}
	}
	if a := s.powerAction(path, "off"); a.status != http.StatusConflict || a.Code != vm.CodeDestroying {
		t.Errorf("during destruction: got %d %s, want 409 %s", a.status, a.body, vm.CodeDestroying)
	}
	close(destroyed)
	if a := <-answers; a.status != http.StatusNoContent {
		t.Errorf("DELETE: got %d %s", a.status, a.body)
	}
}

// A failure of the hypervisor and a panic of the driver return different codes.
func TestPowerFails(t *testing.T) {
	s := serve(t)
	path, m := s.readyMachine()
	s.driver.Hook = func(_ context.Context, step vmtest.Step, _ vm.Machine) error {
		if step == vmtest.Power {
			return errors.New("the hypervisor is stuck")
		}
		return nil
	}
	if a := s.powerAction(path, "off"); a.status != 500 || a.Code != vm.CodeHypervisor || !strings.Contains(a.Message, "stuck") {
		t.Errorf("got %d %s, want 500 %s", a.status, a.body, vm.CodeHypervisor)
	}
	s.driver.Hook = func(_ context.Context, step vmtest.Step, _ vm.Machine) error {
		if step == vmtest.Power {
			panic("broken driver")
		}
		return nil
	}
	if a := s.powerAction(path, "off"); a.status != 500 || a.Code != vm.CodeInternal || strings.Contains(a.body, "broken driver") {
		t.Errorf("got %d %s, want 500 %s", a.status, a.body, vm.CodeInternal)
	}
	s.driver.Hook = nil
	must(t, s.driver.SetPower(m, vm.PoweredOn))
	if a := s.powerAction(path, "off"); a.status != 200 {
		t.Errorf("afterwards: got %d %s, want 200", a.status, a.body)
	}
}

// A power action publishes an event at once.
func TestPowerEvents(t *testing.T) {
	s := serve(t)
	path, _ := s.readyMachine()
	l := s.openEvents("")
	l.until("hello", "")
	s.powerAction(path, "suspend")
	l.until("vm", `"status":"suspended"`)
	s.powerAction(path, "resume")
	l.until("vm", `"status":"powered-on"`)
}

func TestScreenshot(t *testing.T) {
	s := serve(t)
	path, m := s.readyMachine()
	res := s.open(path + "/screenshot")
	b, err := io.ReadAll(res.Body)
	must(t, err)
	if _, err := png.Decode(bytes.NewReader(b)); err != nil || res.Header.Get("Content-Type") != "image/png" || res.StatusCode != http.StatusOK {
		t.Errorf("got %d %s, %v, want a PNG", res.StatusCode, res.Header.Get("Content-Type"), err)
	}
	must(t, s.driver.SetPower(m, vm.PoweredOff))
	if a := s.do("GET", path+"/screenshot", ""); a.status != http.StatusConflict || a.Code != vm.CodePower {
		t.Errorf("powered off: got %d %s, want 409 %s", a.status, a.Code, vm.CodePower)
	}
	s.driver.Hook = func(_ context.Context, step vmtest.Step, _ vm.Machine) error {
		if step == vmtest.Screenshot {
			return errors.New("no framebuffer")
		}
		return nil
	}
	must(t, s.driver.SetPower(m, vm.PoweredOn))
	if a := s.do("GET", path+"/screenshot", ""); a.status != 500 || a.Code != vm.CodeHypervisor {
		t.Errorf("a driver that fails: got %d %s, want 500 %s", a.status, a.Code, vm.CodeHypervisor)
	}
	s.do("DELETE", path, "")
	if a := s.do("GET", path+"/screenshot", ""); a.status != http.StatusNotFound {
		t.Errorf("after DELETE: got %d, want 404", a.status)
	}
}
