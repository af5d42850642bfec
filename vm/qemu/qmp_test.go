package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// qmpServer plays a QEMU: it greets, and answers each command by reply.
func qmpServer(t *testing.T, greeting string, reply func(net.Conn, string)) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "osxb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, qmpSocket))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, greeting)
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if strings.Contains(lines.Text(), "qmp_capabilities") {
					fmt.Fprintln(conn, `{"return": {}}`)
				} else {
					reply(conn, lines.Text())
				}
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return dir
}

const hello = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}` + "\n"

func TestMonitor(t *testing.T) {
	for name, test := range map[string]struct {
		greeting string
		reply    string
		want     string // of the error, or "" for none
	}{
		"answers":          {hello, `{"return": {"status": "running"}}` + "\n", ""},
		"events first":     {hello, `{"event": "RESUME", "data": {}}` + "\n" + `{"return": {"status": "running"}}` + "\n", ""},
		"refuses":          {hello, `{"error": {"class": "GenericError", "desc": "not now"}}` + "\n", "not now"},
		"long answer":      {hello, `{"return": {"status": "running", "x": "` + strings.Repeat("x", 1<<18) + `"}}`, ""},
		"endless answer":   {hello, `{"return": {"status": "` + strings.Repeat("x", 2<<20), "unexpected EOF"},
		"another's answer": {hello, `{"return": []}` + "\n", "reading the answer"},
		"nonsense":         {hello, "???\n", "invalid character"},
		"not QEMU":         {"{}\n", "", "does not greet"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := qmpServer(t, test.greeting, func(c net.Conn, _ string) { fmt.Fprint(c, test.reply) })
			var d Driver
			var got struct{ Status string }
			err := d.withMonitor(t.Context(), dir, func(q monitor) error { return q.ask("query-status", &got) })
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

// A QEMU that says nothing is given up with the caller's time.
func TestMonitorOfSilentQEMU(t *testing.T) {
	for name, greeting := range map[string]string{"from the start": "", "after its greeting": hello} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := qmpServer(t, greeting, func(net.Conn, string) {})
			var d Driver
			ctx, cancel := withMonitorTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			err := d.withMonitor(ctx, dir, func(q monitor) error { return q.ask("query-status", nil) })
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer after 50ms") {
				t.Errorf("got error %v, want that there was no answer after 50ms", err)
			}
		})
	}
}

// An exchange can be cut off at any moment.
func TestMonitorCutOff(t *testing.T) {
	dir := qmpServer(t, hello, func(c net.Conn, _ string) { fmt.Fprintln(c, `{"return": {}}`) })
	var d Driver
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*2*time.Microsecond)
		err := d.withMonitor(ctx, dir, func(q monitor) error { return q.ask("query-status", nil) })
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got error %v of an exchange cut off, want one that wraps the context's", err)
		}
	}
}

func TestPowerOf(t *testing.T) {
	for state, want := range map[string]string{
		"running": "powered-on", "paused": "paused", "prelaunch": "powering-on", "shutdown": "powered-off",
		"suspended": "suspended", "io-error": "blocked", "guest-panicked": "blocked", "watchdog": "paused",
	} {
		if got := powerOf(state); string(got) != want {
			t.Errorf("got %q for %s, want %q", got, state, want)
		}
	}
}
