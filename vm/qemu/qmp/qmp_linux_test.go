package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/qmp"
	"osx-builder/vm/qemu/qmp/qmptest"
	"osx-builder/vm/vmtest"
)

// A QEMU that is busy does not notice that clients gave up, and no more can wait. It is asked
// once it has noticed.
func TestMonitorOfBusyQEMU(t *testing.T) {
	address := &unix.SockaddrUnix{Name: filepath.Join(vmtest.TempDir(t), "qmp")}
	listener := newSocket(t)
	if err := errors.Join(unix.Bind(listener, address), unix.Listen(listener, 1)); err != nil {
		t.Fatal(err)
	}
	gaveUp := 0
	err := unix.Connect(newSocket(t), address)
	for ; err == nil; gaveUp++ {
		err = unix.Connect(newSocket(t), address)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("got error %v of a client too many, want EAGAIN", err)
	}
	var c qmp.Client
	ask := func(ctx context.Context) error {
		return c.WithMonitor(ctx, address.Name, func(m *qmp.Monitor) error { return m.Ask("query-status", nil) })
	}
	short, cancel := qmp.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := ask(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v while no more clients can wait, want that there was no answer in time", err)
	}
	ended := make(chan error, 1)
	go func() {
		err := ask(t.Context())
		_ = unix.Shutdown(listener, unix.SHUT_RDWR) // ends Accept if it still waits
		ended <- err
	}()
	for range gaveUp {
		conn, _, err := unix.Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(conn)
	}
	if err := unix.SetNonblock(listener, false); err != nil {
		t.Fatal(err)
	}
	conn, _, err := unix.Accept(listener)
	if err != nil {
		t.Fatalf("%v: %v", err, <-ended)
	}
	f := os.NewFile(uintptr(conn), "client")
	defer f.Close()
	fmt.Fprint(f, qmptest.Greeting+`{"return": {}}`+"\n"+`{"return": {}}`+"\n")
	if err := <-ended; err != nil {
		t.Errorf("got error %v once the clients that gave up are gone", err)
	}
}

func newSocket(t *testing.T) int {
	t.Helper()
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(s) })
	return s
}
