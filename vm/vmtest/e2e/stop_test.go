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
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmtest/harness"
)

// stopGracefully sends SIGTERM and checks that the daemon exits with status 0 and
// leaves no temporary files. The status is not 0 if the daemon exceeds its own time
// limit.
func stopGracefully(s *harness.Harness) {
	s.T.Helper()
	harness.Must(s.T, s.Stop())
	temporary, _ := filepath.Glob(filepath.Join(s.Data, "vms", ".*"))
	if len(temporary) > 0 {
		s.T.Errorf("temporary files are left: %v", temporary)
	}
}

// SIGTERM ends the daemon soon in every phase of a machine, waiting requests get a
// response, and the next daemon continues the creation.
func TestStopInEachPhase(t *testing.T) {
	t.Parallel()
	for _, phase := range []vm.Phase{vm.Downloading, vm.Cloning, vm.Starting, vm.Waiting} {
		t.Run(string(phase), func(t *testing.T) {
			dir := harness.ProgramDir(t)
			releaseImg, releaseSystem := holdProgram(t, dir, "qemu-img"), holdProgram(t, dir, "qemu-system-x86_64")
			if phase != vm.Cloning {
				releaseImg()
			}
			if phase == vm.Waiting {
				releaseSystem()
			}
			s := harness.NewEnv(t, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH")))
			i := s.Image(harness.TinyVM)
			if phase == vm.Downloading {
				s.Site.Serve = func(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() }
			}
			v := s.Create(i.Body(harness.SmallVM(nil)))
			s.WaitUntil(v.ID, string(phase), func(v vm.VM) bool { return v.Phase == phase })
			response := startRequest(t, s, "/vms/"+v.ID+"?wait=1m")
			stopGracefully(s)
			if status, body := response(); status != http.StatusOK {
				t.Errorf("GET with ?wait=: got %d %s, want 200", status, body)
			}
			s.Site.Serve = nil
			releaseImg()
			releaseSystem()
			s.Start()
			s.WaitReady(v.ID)
		})
	}
}

// An image that takes long to unpack does not delay the end of the daemon.
func TestStopWhileUnpacking(t *testing.T) {
	t.Parallel()
	const size = 128 << 20
	s := harness.New(t)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestSpeed)
	})
	descriptor := strings.Replace(harness.Descriptor("disk-flat.vmdk"), "RW 8 ", fmt.Sprintf("RW %d ", size/512), 1)
	for name, content := range map[string]io.Reader{
		"a.vmx":          strings.NewReader(harness.VMX("disk.vmdk")),
		"disk.vmdk":      strings.NewReader(descriptor),
		"disk-flat.vmdk": io.LimitReader(endlessReader{}, size),
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
	stopGracefully(s)
	s.Start()
	s.WaitUntil(v.ID, "unpacked", func(v vm.VM) bool {
		return v.Phase != vm.Accepted && v.Phase != vm.Downloading && v.Phase != vm.Unpacking
	})
	if v := s.Get(v.ID); v.Phase == vm.Failed {
		t.Errorf("after the restart the machine failed: %+v", v.Error)
	}
	s.Destroy(v.ID)
}

// SIGTERM ends the daemon while a machine and a receiver of callbacks hang.
func TestStopWhileOthersHang(t *testing.T) {
	t.Parallel()
	hung := make(chan struct{})
	receiver := hangingReceiver(t, hung) // before the harness, whose end it outlives
	s := harness.New(t)
	i := s.Image(harness.TinyVM)
	v := s.WaitReady(s.Create(i.Body(harness.SmallVM(map[string]any{"callback_url": receiver}))).ID)
	<-hung
	harness.Must(t, syscall.Kill(s.QEMUPID(v.ID), syscall.SIGSTOP))
	first := s.Daemon
	go func() { _, _ = first.Do("GET", "/vms/"+v.ID, "", nil) }() // hangs like the machine
	stopGracefully(s)
	s.Start()
	s.Destroy(v.ID)
}

// hangingReceiver receives callbacks and does not respond to the first of them.
func hangingReceiver(t *testing.T, hung chan struct{}) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	harness.Must(t, err)
	var once sync.Once
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() {
			close(hung)
			_, _ = io.Copy(io.Discard, r.Body) // until then the server does not notice that the client disconnects
			<-r.Context().Done()
		})
	})}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { harness.Must(t, server.Close()) })
	return "http://" + l.Addr().String() + "/"
}

// The daemon notifies systemd when it is ready and when it stops.
func TestSystemdNotification(t *testing.T) {
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
	stopGracefully(s)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("at the end: got %q, want STOPPING=1", got)
	}
}
