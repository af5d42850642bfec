package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/qemu/qmp"
	"osx-builder/vm/qemu/qmp/qmptest"
)

func TestMonitor(t *testing.T) {
	for name, test := range map[string]struct {
		greeting string
		reply    string
		want     string // of the error, or "" for none
	}{
		"answers":                {qmptest.Greeting, `{"return": {"status": "running"}}` + "\n", ""},
		"events first":           {qmptest.Greeting, `{"event": "RESUME", "data": {}}` + "\n" + `{"return": {"status": "running"}}` + "\n", ""},
		"refuses":                {qmptest.Greeting, `{"error": {"class": "GenericError", "desc": "not now"}}` + "\n", "not now"},
		"long answer":            {qmptest.Greeting, `{"return": {"status": "running", "x": "` + strings.Repeat("x", 1<<18) + `"}}`, ""},
		"endless answer":         {qmptest.Greeting, `{"return": {"status": "` + strings.Repeat("x", 2<<20), "unexpected EOF"},
		"answer of another type": {qmptest.Greeting, `{"return": []}` + "\n", "reading the answer"},
		"nonsense":               {qmptest.Greeting, "???\n", "invalid character"},
		"another's answer":       {`{"return": {}, "id": "x"}` + "\n" + qmptest.Greeting, `{"return": {"status": "paused"}, "id": "x"}` + "\n" + `{"return": {"status": "running"}}` + "\n", ""},
		"not QEMU":               {"{}\n", "", "does not greet"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := qmptest.Serve(t, test.greeting, func(c net.Conn, _ string) { fmt.Fprint(c, test.reply) })
			var c qmp.Client
			var got struct{ Status string }
			err := c.WithMonitor(t.Context(), socket, func(m *qmp.Monitor) error { return m.Ask("query-status", &got) })
			if test.want == "" {
				if err != nil || got.Status != "running" {
					t.Errorf("got %+v and error %v, want running", got, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want %q in it", err, test.want)
			}
		})
	}
}

// Several commands are sent at once. Each gets its own answer, and the first that is refused is the error.
func TestAskAll(t *testing.T) {
	answers := map[string]string{
		"query-name": `{"return": {"name": "web"}, "id": %q}`, "query-status": `{"return": {"status": "running"}, "id": %q}`,
		"query-kvm": `{"error": {"desc": "not now"}, "id": %q}`,
	}
	var held []string // until the last command has come
	socket := qmptest.Serve(t, qmptest.Greeting, func(c net.Conn, text string) {
		var command struct{ Execute, ID string }
		if err := json.Unmarshal([]byte(text), &command); err != nil {
			t.Error(err)
		}
		held = append(held, `{"event": "RESUME"}`, fmt.Sprintf(answers[command.Execute], command.ID))
		if command.Execute == "query-status" {
			fmt.Fprintln(c, strings.Join(held, "\n"))
			held = nil
		}
	})
	var c qmp.Client
	ask := func(first string) (name, status string, err error) {
		var n struct{ Name string }
		var s struct{ Status string }
		err = c.WithMonitor(t.Context(), socket, func(m *qmp.Monitor) error {
			return m.AskAll(qmp.Question{Command: first, Out: &n}, qmp.Question{Command: "query-status", Out: &s})
		})
		return n.Name, s.Status, err
	}
	if name, status, err := ask("query-name"); name != "web" || status != "running" || err != nil {
		t.Errorf("got %q, %q and error %v, want web and running", name, status, err)
	}
	if _, _, err := ask("query-kvm"); err == nil || !strings.Contains(err.Error(), "query-kvm: not now") {
		t.Errorf("got error %v, want that of query-kvm", err)
	}
}

// If a QEMU does not answer, the call ends with the caller's context.
func TestMonitorOfSilentQEMU(t *testing.T) {
	for name, greeting := range map[string]string{"from the start": "", "after its greeting": qmptest.Greeting} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := qmptest.Serve(t, greeting, func(net.Conn, string) {})
			var c qmp.Client
			ctx, cancel := qmp.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err := c.WithMonitor(ctx, socket, func(m *qmp.Monitor) error { return m.Ask("query-status", nil) })
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer after 50ms") {
				t.Errorf("got error %v, want that there was no answer after 50ms", err)
			}
		})
	}
}

// An exchange can be cut off at any moment.
func TestMonitorCutOff(t *testing.T) {
	socket := qmptest.Serve(t, qmptest.Greeting, func(c net.Conn, _ string) { fmt.Fprintln(c, `{"return": {}}`) })
	var c qmp.Client
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*2*time.Microsecond)
		err := c.WithMonitor(ctx, socket, func(m *qmp.Monitor) error { return m.Ask("query-status", nil) })
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got error %v of an exchange cut off, want one that wraps the context's", err)
		}
	}
}
