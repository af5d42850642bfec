package client_test

import (
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"osx-builder/api/client"
)

// The client waits for a server that is just starting, as the daemon does. If the
// client is so slow that it finds the server at once, this test shows nothing, but
// it passes.
func TestChecksumOfServerThatStarts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(archive("good"))
	})}
	served := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() { served <- server.ListenAndServe() })

	var stdout, stderr strings.Builder
	code := client.Run(t.Context(), client.Options{
		Args: []string{"checksum", "http://" + address + "/good.tar"}, Getenv: os.Getenv, Stdout: &stdout, Stderr: &stderr,
	})
	if code != 0 || stdout.String() != sum(archive("good"))+"\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q, want the checksum", code, &stdout, &stderr)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != http.ErrServerClosed {
		t.Error(err)
	}
}
