package e2e_test

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// verifySignature lets the specification's own library judge.
func verifySignature(secret string, h http.Header, body []byte) error {
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	return w.Verify(body, h)
}

// dialServed opens a connection that the daemon serves.
func dialServed(s *harness.Harness) net.Conn {
	s.T.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	harness.Must(s.T, err)
	_, err = c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	harness.Must(s.T, err)
	_, err = c.Read(make([]byte, 1))
	harness.Must(s.T, err)
	return c
}

// newPlainDaemon runs the daemon without reading its log.
func newPlainDaemon(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	data, err := os.MkdirTemp("", "osxb")
	harness.Must(t, err)
	d := exec.Command(harness.Binary(t), append([]string{"-data", data, "-listen", "127.0.0.1:0"}, args...)...)
	harness.Must(t, d.Start())
	t.Cleanup(func() {
		_ = d.Process.Kill() // it has ended, unless the test failed
		harness.Must(t, os.RemoveAll(data))
	})
	for i, a := range args {
		if a == "-log-file" {
			waitForText(t, args[i+1], "listening")
		}
	}
	return d
}

// waitForText waits until a file has a text.
func waitForText(t *testing.T, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), text) {
			return
		}
	}
	b, _ := os.ReadFile(path)
	t.Fatalf("%s does not get %q: %s", path, text, b)
}

// stopInOrder sends SIGTERM and checks that the daemon ends with status 0, which it
// does only within its own time limit, and that nothing half-written is left.
func stopInOrder(s *harness.Harness) {
	s.T.Helper()
	harness.Must(s.T, s.Stop())
	half, _ := filepath.Glob(filepath.Join(s.Data, "vms", ".*"))
	if len(half) > 0 {
		s.T.Errorf("half-written files are left: %v", half)
	}
}

// SIGTERM ends the daemon soon whatever its jobs are at, those who wait get an
// answer, and the next daemon goes on where this one was.
func TestStopInEachPhase(t *testing.T) {
	t.Parallel()
	for _, phase := range []vm.Phase{vm.Downloading, vm.Cloning, vm.Starting, vm.Waiting} {
		t.Run(string(phase), func(t *testing.T) {
			dir := t.TempDir()
			open := []func(){gate(t, dir, "qemu-img"), gate(t, dir, "qemu-system-x86_64")}
			if phase != vm.Cloning {
				open[0]()
			}
			if phase == vm.Waiting {
				open[1]()
			}
			s := harness.NewEnv(t, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH")))
			i := s.Image(harness.TinyVM)
			if phase == vm.Downloading {
				s.Site.Serve = func(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() }
			}
			v := s.Create(i.Body(harness.SmallVM(nil)))
			s.WaitUntil(v.ID, string(phase), func(v vm.VM) bool { return v.Phase == phase })
			waited := make(chan string, 1)
			go func() {
				a, err := s.Do("GET", "/vms/"+v.ID+"?wait=1m", "", nil)
				if err != nil || a.Status != http.StatusOK {
					waited <- string(a.Body)
					return
				}
				waited <- ""
			}()
			time.Sleep(50 * time.Millisecond) // so that the waiter is likely to wait; either way it has its answer
			stopInOrder(s)
			if said := <-waited; said != "" {
				t.Errorf("?wait= got no document: %s", said)
			}
			s.Site.Serve = nil
			open[0]()
			open[1]()
			s.Start()
			s.WaitReady(v.ID)
		})
	}
}

// An image that takes its time to unpack holds up the end no longer than others.
func TestStopWhileUnpacking(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	s := harness.New(t)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	for name, content := range map[string]io.Reader{
		"a.vmx":          strings.NewReader(harness.VMX("disk.vmdk")),
		"disk.vmdk":      strings.NewReader(strings.Replace(harness.Descriptor("disk-flat.vmdk"), "RW 8 ", fmt.Sprintf("RW %d ", size/512), 1)),
		"disk-flat.vmdk": io.LimitReader(neverEnds{}, size),
	} {
		w, err := z.Create(name)
		harness.Must(t, err)
		_, err = io.Copy(w, content)
		harness.Must(t, err)
	}
	harness.Must(t, z.Close())
	s.Serve(map[string][]byte{"zeroes": b.Bytes()})
	v := s.Create(s.ImageOf("zeroes", b.Bytes()).Body(harness.SmallVM(nil)))
	s.WaitUntil(v.ID, "unpacking", func(v vm.VM) bool { return v.Phase == vm.Unpacking })
	stopInOrder(s)
	s.Start()
	s.WaitUntil(v.ID, "unpacked", func(v vm.VM) bool {
		return v.Phase != vm.Accepted && v.Phase != vm.Downloading && v.Phase != vm.Unpacking
	})
	if v := s.Get(v.ID); v.Phase == vm.Failed {
		t.Errorf("after the restart it failed: %+v", v.Error)
	}
	s.Destroy(v.ID)
}

// SIGTERM during a destruction that hangs, and while a receiver does.
func TestStopWhileOthersHang(t *testing.T) {
	t.Parallel()
	s := harness.New(t)
	hung := make(chan struct{})
	receiver := hangingReceiver(t, hung)
	i := s.Image(harness.TinyVM)
	v := s.WaitReady(s.Create(i.Body(harness.SmallVM(map[string]any{"callback_url": receiver}))).ID)
	<-hung
	harness.Must(t, syscall.Kill(s.QEMUPID(v.ID), syscall.SIGSTOP))
	first := s.Daemon
	go func() { _, _ = first.Do("GET", "/vms/"+v.ID, "", nil) }() // hangs with the machine
	stopInOrder(s)
	s.Start()
	s.Destroy(v.ID)
}

// hangingReceiver takes callbacks and does not answer the first of them.
func hangingReceiver(t *testing.T, hung chan struct{}) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	var once sync.Once
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() {
			close(hung)
			_, _ = io.Copy(io.Discard, r.Body) // until then the server does not see the client leave
			<-r.Context().Done()
		})
	})}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { harness.Must(t, server.Close()) })
	return "http://" + l.Addr().String() + "/"
}

// The unit tells systemd when the daemon is ready, and when it stops.
func TestSystemdIsNotified(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	harness.Must(t, err)
	defer l.Close()
	s := harness.NewEnv(t, append(os.Environ(), "NOTIFY_SOCKET="+socket))
	next := func() string {
		t.Helper()
		harness.Must(t, l.SetReadDeadline(time.Now().Add(harness.Timeout)))
		b := make([]byte, 1000)
		n, err := l.Read(b)
		harness.Must(t, err)
		return string(b[:n])
	}
	if got := next(); got != "READY=1" {
		t.Errorf("at the start: got %q, want READY=1", got)
	}
	stopInOrder(s)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("at the end: got %q, want STOPPING=1", got)
	}
}
