package qmp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"osx-builder/vm/qemu/qmp/qmptest"
)

// guest is an agent that listens at the returned socket. answer gets each
// request without its line end.
func guest(t *testing.T, answer func(net.Conn, string)) (socket string) {
	t.Helper()
	return qmptest.Listen(t, "qga", func(conn net.Conn) {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			answer(conn, lines.Text())
		}
	})
}

func newAgents(t *testing.T) *Agents {
	var a Agents
	t.Cleanup(a.Close)
	return &a
}

// greets answers guest-sync-delimited after junk, and every other request by rest.
func greets(junk, rest string) func(net.Conn, string) {
	return func(conn net.Conn, request string) {
		if _, id, found := strings.Cut(request, `"id":`); found {
			fmt.Fprintf(conn, "%s\xff{\"return\": %s}\n", junk, strings.TrimRight(id, "}"))
			return
		}
		fmt.Fprint(conn, rest)
	}
}

const interfaces = `{"return": [
	{"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [{"ip-address": "127.0.0.1"}]},
	{"name": "eth0", "hardware-address": "52:AB:00:00:00:01", "ip-addresses": [
		{"ip-address": "10.9.9.9"}, {"ip-address": "10.1.2.3"}]}]}` + "\n"

func TestInterfaces(t *testing.T) {
	oneLine := strings.ReplaceAll(interfaces[:len(interfaces)-1], "\n", " ") + "\n"
	for name, test := range map[string]struct {
		answer func(net.Conn, string)
		want   string
	}{
		"healthy":             {greets("", oneLine), "[127.0.0.1 10.9.9.9 10.1.2.3]"},
		"late answers first":  {greets("{\"return\": []}\n\xff{\"return\": 1}\n", oneLine), "[127.0.0.1 10.9.9.9 10.1.2.3]"},
		"much before":         {greets(strings.Repeat("x", 1<<16), oneLine), "[127.0.0.1 10.9.9.9 10.1.2.3]"},
		"no address":          {greets("", `{"return": [{"name": "eth0"}]}`+"\n"), "[]"},
		"address is no text":  {greets("", `{"return": [{"ip-addresses": 5}]}`+"\n"), ""},
		"error":               {greets("", `{"error": {"class": "CommandNotFound"}}`+"\n"), "[]"},
		"silent":              {func(net.Conn, string) {}, ""},
		"floods":              {func(c net.Conn, _ string) { fmt.Fprint(c, strings.Repeat("x", 2<<20)) }, ""},
		"hangs up":            {func(c net.Conn, _ string) { c.Close() }, ""},
		"endless one reply":   {greets("", `{"return": [{"name": "`+strings.Repeat("x", 2<<20)), ""},
		"another's greetings": {func(c net.Conn, _ string) { fmt.Fprint(c, "\xff{\"return\": 1}\n") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := time.Minute // an answer comes at once, but the host may be busy
			if test.want == "" {
				limit = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			got, err := newAgents(t).askInterfaces(ctx, guest(t, test.answer))
			if (err == nil) != (test.want != "") {
				t.Fatalf("got error %v, want an answer: %t", err, test.want != "")
			}
			var all []string
			for _, i := range got {
				for _, a := range i.Addresses {
					all = append(all, a.IP)
				}
			}
			if all := fmt.Sprint(all); err == nil && all != test.want {
				t.Errorf("got addresses %v, want %s", all, test.want)
			}
		})
	}
}

// Requests to an agent share a connection. A new one is opened after QEMU has closed it, after a request without an
// answer, and after Release. A request that waits for another can give up.
func TestConnectionIsKept(t *testing.T) {
	var connections atomic.Int32
	var removes atomic.Bool
	var socket string
	requests := 0
	silent := make(chan struct{})
	socket = qmptest.Listen(t, "qga", func(conn net.Conn) {
		connections.Add(1)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if strings.Contains(lines.Text(), "sync") {
				greets("", "")(conn, lines.Text())
				continue
			}
			switch requests++; requests {
			case 3: // the end of this QEMU
				fmt.Fprintln(conn, `{"return": {}}`)
				return
			case 5:
				close(silent)
			default:
				if removes.Load() {
					if err := os.Remove(socket); err != nil {
						t.Error(err)
					}
				}
				fmt.Fprintln(conn, `{"return": {}}`)
			}
		}
	})
	agents := newAgents(t)
	ask := func(want int32) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := agents.SetTime(ctx, socket); err != nil || connections.Load() != want {
			t.Errorf("got %v on connection %d, want an answer on connection %d", err, connections.Load(), want)
		}
	}
	ask(1)
	ask(1)
	ask(1)
	ask(2)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- agents.SetTime(ctx, socket) }()
	<-silent
	impatient, giveUp := context.WithCancel(t.Context())
	giveUp()
	if err := agents.SetTime(impatient, socket); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that does not wait for another: got %v", err)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("got no error from an agent that is silent")
	}
	ask(3)
	agents.Release(socket)
	ask(4)
	removes.Store(true)
	ask(4)
	if n := len(agents.kept); n != 0 {
		t.Errorf("%d connections are kept to a socket that was removed before the answer came", n)
	}
}

// Run waits for the end of a program, and reports how it ended.
func TestExec(t *testing.T) {
	polls := 0
	socket := guest(t, func(conn net.Conn, request string) {
		switch {
		case strings.Contains(request, "guest-exec-status"):
			if polls++; polls < 3 {
				fmt.Fprint(conn, `{"return": {"exited": false}}`+"\n")
				return
			}
			fmt.Fprint(conn, `{"return": {"exited": true, "exitcode": 3, "out-data": "b3V0", "err-data": "ZXJy"}}`+"\n")
		case strings.Contains(request, `"input-data":"aW4="`):
			fmt.Fprint(conn, `{"return": {"pid": 7}}`+"\n")
		default:
			greets("", `{"error": {"desc": "it is disabled"}}`+"\n")(conn, request)
		}
	})
	agents := newAgents(t)
	r, err := agents.Run(t.Context(), socket, Exec{Path: "/bin/sh", Input: []byte("in")})
	if err != nil || r.Code != 3 || string(r.Output) != "out" || string(r.Errors) != "err" {
		t.Errorf("got %+v (%v), want code 3, out and err", r, err)
	}
	if _, err := agents.Run(t.Context(), socket, Exec{Path: "/bin/sh"}); err == nil || !strings.Contains(err.Error(), "it is disabled") {
		t.Errorf("got error %v, want the agent's", err)
	}
	polls = -1 << 20
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := agents.Run(ctx, socket, Exec{Path: "/bin/sh", Input: []byte("in")}); err == nil {
		t.Error("a program that does not end has ended")
	}
}

// The clock is set to the time at which the agent has answered, however late that is.
func TestSetTime(t *testing.T) {
	var answered, got int64
	socket := guest(t, func(conn net.Conn, request string) {
		if strings.Contains(request, "guest-sync-delimited") {
			time.Sleep(10 * time.Millisecond)
			answered = time.Now().UnixNano()
			greets("", "")(conn, request)
			return
		}
		if _, err := fmt.Sscanf(request, `{"execute":"guest-set-time","arguments":{"time":%d}}`, &got); err != nil {
			t.Errorf("got %s: %v", request, err)
		}
		fmt.Fprintln(conn, `{"return": {}}`)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := newAgents(t).SetTime(ctx, socket); err != nil || got < answered {
		t.Errorf("got the time %d, %v, want one after %d", got, err, answered)
	}
}

// An agent that does not answer does not hold up a caller that is cancelled.
func TestSetTimeCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	socket := guest(t, func(net.Conn, string) { cancel() })
	if err := newAgents(t).SetTime(ctx, socket); err == nil {
		t.Error("got no error from an agent that is silent")
	}
}
