// Package qmptest has a QEMU monitor, and any other Unix socket of QEMU's, for
// tests.
package qmptest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Greeting is what a QEMU sends first.
const Greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}` + "\n"

// Serve listens as a QEMU's monitor at the returned socket, whose name is "qmp",
// until the test ends. It sends the greeting to each client, accepts its
// qmp_capabilities and answers every other command by reply.
func Serve(t *testing.T, greeting string, reply func(conn net.Conn, command string)) (socket string) {
	t.Helper()
	return Listen(t, "qmp", func(conn net.Conn) {
		fmt.Fprint(conn, greeting)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if strings.Contains(lines.Text(), "qmp_capabilities") {
				fmt.Fprintln(conn, `{"return": {}}`)
			} else {
				reply(conn, lines.Text())
			}
		}
	})
}

// Listen listens at the returned socket, which has this file name, until the test
// ends. It serves one client after the other, and closes the connection of each
// when serve returns.
func Listen(t *testing.T, name string, serve func(net.Conn)) (socket string) {
	t.Helper()
	// The paths of t.TempDir are too long for a socket.
	dir, err := os.MkdirTemp("/tmp", "osxb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, name)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var client net.Conn // guarded by mu
	ended := false      // guarded by mu
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if client = conn; ended {
				conn.Close()
			}
			mu.Unlock()
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		if ended = true; client != nil {
			client.Close()
		}
		mu.Unlock()
		<-done
	})
	return socket
}
