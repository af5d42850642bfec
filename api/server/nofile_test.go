package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"osx-builder/api/server"
	"osx-builder/vm/vmtest/harness"
)

// limitedServerEnv makes the test binary run limitedServer instead of the tests.
const limitedServerEnv = "OSX_BUILDER_TEST_LIMITED_SERVER"

// limitedServer serves with 64 open files until stdin is closed. It prints its limit of connections and its URL.
func limitedServer() error {
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	s, err := server.Listen(server.Options{Listen: "127.0.0.1:0", Connections: 1000, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println(s.Connections, s.URL())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return s.Serve(context.Background(), nil, server.Service{Handler: http.HandlerFunc(hello), Reload: func() error { return nil }, Stop: func() {}})
}

// With few open files the limit of connections is lowered, so that silent clients cannot use all files.
func TestOpenFileLimit(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), limitedServerEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() {
		must(t, stdin.Close())
		must(t, cmd.Wait())
	}()
	var connections int
	var url string
	_, err = fmt.Fscan(bufio.NewReader(stdout), &connections, &url)
	must(t, err)
	if connections != 32 {
		t.Errorf("got a limit of %d connections with 64 files, want 32", connections)
	}
	dial := func() client {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		must(t, c.SetDeadline(time.Now().Add(harness.Timeout)))
		return client{c, t, bufio.NewReader(c)}
	}
	first := dial()
	for range 149 {
		dial()
	}
	dial().get("/").expectAnswer()
	first.expectClosed()
}
