package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm/vmtest/harness"
)

const (
	// slowClients is the number of slow connections, all from this process.
	slowClients = 10_000

	// maxConnections is the daemon's -connections.
	maxConnections = 500

	// otherFiles bounds the other files that the daemon has open.
	otherFiles = 100
)

// Ten thousand connections that send nothing, half a header or half a body do not
// block other clients, the daemon keeps no more than -connections of them open, and
// it closes them when their clients do.
func TestSlowConnections(t *testing.T) {
	n := slowClients
	var files syscall.Rlimit
	harness.Must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if most := int(files.Max) - 500; most < n {
		t.Logf("this process may open %d files, so the test opens %d slow connections", files.Max, most)
		n = most
	}
	files.Cur = min(files.Max, slowClients+500)
	harness.Must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
	s := harness.New(t, "-connections", fmt.Sprint(maxConnections))
	opened, result := make(chan struct{}), make(chan error, 1)
	go func() { result <- sendRequests(s.URL, opened) }()
	slow := openSlowConnections(t, strings.TrimPrefix(s.URL, "http://"), n)
	if got := openFiles(s); got > maxConnections+otherFiles {
		t.Errorf("with %d slow connections the daemon has %d files open, want at most %d", n, got, maxConnections+otherFiles)
	}
	close(opened)
	harness.Must(t, <-result)
	for _, c := range slow {
		harness.Must(t, c.Close())
	}
	deadline := time.Now().Add(harness.Timeout)
	for openFiles(s) > otherFiles && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := openFiles(s); got > otherFiles {
		t.Errorf("after the connections are closed the daemon has %d files open, want at most %d", got, otherFiles)
	}
}

// openSlowConnections opens n connections that send nothing, half a header or half a
// body.
func openSlowConnections(t *testing.T, address string, n int) []net.Conn {
	t.Helper()
	slow := make([]net.Conn, n)
	t.Cleanup(func() {
		for _, c := range slow {
			if c != nil {
				_ = c.Close() // the test may have closed it
			}
		}
	})
	var wg sync.WaitGroup
	failed := make(chan error, 16)
	for first := range 16 {
		wg.Go(func() {
			for i := first; i < n; i += 16 {
				c, err := net.DialTimeout("tcp", address, harness.Timeout)
				if err != nil {
					failed <- fmt.Errorf("connection %d: %w", i, err)
					return
				}
				slow[i] = c
				_, _ = io.WriteString(c, []string{
					"",
					"GET /healthz HTTP/1.1\r\nHost: local",
					"POST /vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
				}[i%3]) // the daemon may have closed the connection already
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	return slow
}

// sendRequests sends requests, each on a new connection, until done is closed, and
// then ten times more. Each must be answered.
func sendRequests(url string, done <-chan struct{}) error {
	c := http.Client{Timeout: harness.Timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	for left := 10; left > 0; {
		for _, path := range []string{"/healthz", "/vms"} {
			res, err := c.Get(url + path)
			if err != nil {
				return err
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusOK {
				return errors.New("GET " + path + ": " + res.Status)
			}
		}
		res, err := c.Post(url+"/vms", "application/json", strings.NewReader("{}"))
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			return errors.New("POST /vms: " + res.Status)
		}
		select {
		case <-done:
			left--
		default:
		}
	}
	return nil
}

// openFiles returns the number of the daemon's open files, or 0 on systems without
// /proc.
func openFiles(s *harness.Harness) int {
	s.T.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.T.Fatal(err)
	}
	return len(names)
}

// If there are as many idle connections as -connections allows, a new connection
// replaces the one that is idle longest.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	s := harness.New(t, "-connections", "2")
	// The first is idle as soon as it is accepted, and the second once the daemon asks for
	// the body. After an answer the daemon would find it idle in its own time.
	first, second := dial(s), dial(s)
	defer first.Close()
	defer second.Close()
	send(s, second, "POST /vms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+
		"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n", http.StatusContinue)
	a, err := s.Do("GET", "/healthz", "", nil)
	harness.Must(t, err)
	if a.Status != http.StatusOK {
		t.Errorf("the third connection: got %d, want 200", a.Status)
	}
	if _, err := io.ReadAll(first); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection that was idle longest stays open, want it closed")
	}
	send(s, second, "{}", http.StatusBadRequest)
}

// dial opens a connection whose reads and writes end after [harness.Timeout].
func dial(s *harness.Harness) net.Conn {
	s.T.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	harness.Must(s.T, err)
	harness.Must(s.T, c.SetDeadline(time.Now().Add(harness.Timeout)))
	return c
}

// send sends text and checks the status of the answer.
func send(s *harness.Harness, c net.Conn, text string, want int) {
	s.T.Helper()
	_, err := io.WriteString(c, text)
	harness.Must(s.T, err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	harness.Must(s.T, err)
	if res.StatusCode != want {
		s.T.Errorf("after %q: got %s, want %d", text, res.Status, want)
	}
}
