package e2e_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

// socket is a TCP connection of the daemon, as /proc/net/tcp shows it.
type socket struct {
	clientPort int
	accepted   bool // by the daemon
	unread     bool // the daemon has not read all that it received
}

// daemonSockets returns the connections of the daemon that it has not closed.
func daemonSockets(s *harness.Harness) (all []socket) {
	s.T.Helper()
	const established, closeWait = "01", "08"
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	harness.Must(s.T, err)
	for line := range strings.Lines(harness.ReadFile(s.T, "/proc/net/tcp")) {
		f := strings.Fields(line) // sl, local, remote, state, tx_queue:rx_queue, timer, retransmits, uid, timeout, inode
		if hexPort(f[1]) != port || (f[3] != established && f[3] != closeWait) {
			continue
		}
		client, err := strconv.Atoi(hexPort(f[2]))
		harness.Must(s.T, err)
		all = append(all, socket{clientPort: client, accepted: f[9] != "0", unread: !strings.HasSuffix(f[4], ":00000000")})
	}
	return all
}

// hexPort returns the port of an address such as 0100007F:3039, in decimal.
func hexPort(address string) string {
	_, port, _ := strings.Cut(address, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return "" // of the heading
	}
	return strconv.FormatUint(n, 10)
}

// waitForSockets waits until ok returns true for the daemon's connections.
func waitForSockets(s *harness.Harness, what string, ok func([]socket) bool) {
	s.T.Helper()
	deadline := time.Now().Add(harness.Timeout)
	for all := daemonSockets(s); !ok(all); all = daemonSockets(s) {
		if time.Now().After(deadline) {
			s.T.Fatalf("not %s within %v: %+v", what, harness.Timeout, all)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startRequest sends a GET on a new connection and returns once the daemon has
// read it. The returned function waits for the response.
func startRequest(t *testing.T, s *harness.Harness, path string) (response func() (status int, body string)) {
	t.Helper()
	c := dial(s)
	_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	harness.Must(t, err)
	port := c.LocalAddr().(*net.TCPAddr).Port
	waitForSockets(s, "read by the daemon", func(all []socket) bool {
		for _, socket := range all {
			if socket.clientPort == port {
				return socket.accepted && !socket.unread
			}
		}
		return false
	})
	return func() (int, string) {
		t.Helper()
		defer c.Close()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		harness.Must(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		harness.Must(t, err)
		return res.StatusCode, string(b)
	}
}
