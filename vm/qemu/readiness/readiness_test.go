package readiness_test

import (
	"context"
	"net"
	"testing"
	"time"

	"osx-builder/vm/qemu/readiness"
	"osx-builder/vm/vmtest/harness"
)

// listen accepts connections for a guest. Those that arrive are sent to the channel.
func listen(t *testing.T) (port int, arrived <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn, 100)
	go func() {
		defer close(conns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, conns
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(harness.Timeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen within %v", what, harness.Timeout)
		}
	}
}

// Ready returns although the probe has no result yet, and later calls return the result. The guest of another process,
// and one that was forgotten, are probed again.
func TestReady(t *testing.T) {
	port, arrived := listen(t)
	asked, answer := make(chan int, 100), make(chan bool, 100)
	p := readiness.New(func(_ context.Context, _ string, pid int) bool { asked <- pid; return <-answer })
	t.Cleanup(p.Close)
	for _, pid := range []int{1, 2} {
		if p.Ready("dir", pid, port) {
			t.Errorf("process %d: got ready before it was probed", pid)
		}
		(<-arrived).Close() // a guest that refuses is up
		if got := <-asked; got != pid {
			t.Errorf("got the process %d asked, want %d", got, pid)
		}
		if p.Ready("dir", pid, port) { // the probe has not ended
			t.Errorf("process %d: got ready before QEMU answered", pid)
		}
		answer <- true
		until(t, "ready", func() bool { return p.Ready("dir", pid, port) })
	}
	if len(arrived) > 0 || len(asked) > 0 {
		t.Errorf("got %d connections and %d questions more, want one probe for each process", len(arrived), len(asked))
	}
	p.Forget("dir")
	if p.Ready("dir", 2, port) {
		t.Error("got ready for a guest that was forgotten")
	}
	(<-arrived).Close()
	answer <- false
	<-asked
	until(t, "the next probe", func() bool { return p.Ready("dir", 2, port) || len(arrived) > 0 })
	(<-arrived).Close()
	answer <- true
	until(t, "ready", func() bool { return p.Ready("dir", 2, port) })
}

// A guest that is not up does not answer. Close ends its probe, and later calls begin none.
func TestSilentGuest(t *testing.T) {
	port, arrived := listen(t)
	p := readiness.New(func(context.Context, string, int) bool { t.Error("QEMU was asked"); return true })
	if p.Ready("dir", 1, port) {
		t.Error("got ready for a guest that does not answer")
	}
	c := <-arrived
	defer c.Close()
	p.Close()
	if p.Ready("dir", 1, port) || p.Ready("other", 1, port) {
		t.Error("got ready after Close")
	}
	p.Close()
	if len(arrived) > 0 {
		t.Error("Ready probes after Close")
	}
}
