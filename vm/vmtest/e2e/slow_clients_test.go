package e2e_test

import (
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
	// slowClients is how many connections the attacker opens, all from this
	// process.
	slowClients = 10_000

	// places is how many the daemon keeps, and spareFiles what it has open
	// beside them.
	places, spareFiles = 500, 100

	// honestTime is how soon an honest client has its answer: the daemon makes
	// a place for it at once, so this only leaves room for a busy machine.
	honestTime = harness.Timeout
)

// Ten thousand connections that say nothing, or a header or a body byte by
// byte, neither keep out who asks, nor cost more than -connections allows, nor
// stay once they are given up.
func TestSlowConnections(t *testing.T) {
	n := slowClients
	var files syscall.Rlimit
	harness.Must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if most := int(files.Max) - 500; most < n {
		t.Logf("this process may open %d files, so there are %d slow connections", files.Max, most)
		n = most
	}
	files.Cur = min(files.Max, slowClients+500)
	harness.Must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
	s := harness.New(t, "-connections", fmt.Sprint(places))
	at := strings.TrimPrefix(s.URL, "http://")
	asked, answered := make(chan struct{}), make(chan error, 1)
	go func() { answered <- honest(s.URL, asked) }()
	slow := make([]net.Conn, n)
	defer func() {
		for _, c := range slow {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	var wg sync.WaitGroup
	failed := make(chan error, 16)
	for first := range 16 {
		wg.Go(func() {
			for i := first; i < n; i += 16 {
				c, err := net.DialTimeout("tcp", at, honestTime)
				if err != nil {
					failed <- fmt.Errorf("connection %d: %w", i, err)
					return
				}
				slow[i] = c
				_, _ = io.WriteString(c, []string{
					"", "GET /healthz HTTP/1.1\r\nHost: local", "POST /vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
				}[i%3]) // it may have given way already
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if got := openFiles(s); got > places+spareFiles {
		t.Errorf("with %d slow connections the daemon has %d files open, want at most %d", n, got, places+spareFiles)
	}
	close(asked)
	harness.Must(t, <-answered)
	for i := range slow {
		_ = slow[i].Close()
		slow[i] = nil
	}
	deadline := time.Now().Add(honestTime)
	for openFiles(s) > spareFiles && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := openFiles(s); got > spareFiles {
		t.Errorf("once they are gone the daemon has %d files open, want at most %d", got, spareFiles)
	}
}

// honest asks again and again, over new connections, until done is closed and
// ten times after; each must have its answer in time.
func honest(url string, done <-chan struct{}) error {
	c := http.Client{Timeout: honestTime, Transport: &http.Transport{DisableKeepAlives: true}}
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

// openFiles counts what the daemon has open; 0 where the system does not tell.
func openFiles(s *harness.Harness) int {
	s.T.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.T.Fatal(err)
	}
	return len(names)
}
