package client_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// rig is what a script plays with beside the command line: a daemon whose
// machines are files, and a web site with images.
type rig struct {
	program, memoryDaemon string // paths

	data    string
	site    *httptest.Server
	release chan struct{} // closed once the slow image may go on
	open    sync.Once

	daemon   *e2e.Daemon
	commands map[string]*command
}

// command is a command line that runs beside the script.
type command struct {
	*exec.Cmd
	stdout, stderr transcript
}

// transcript is what a command has written so far.
type transcript struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	return len(b), nil
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// newRig adds the rig's addresses to the script's environment.
func newRig(t *testing.T, env *testscript.Env) (*rig, error) {
	data, err := os.MkdirTemp("", "osxb") // short: sockets will be in it
	if err != nil {
		return nil, err
	}
	r := &rig{
		program: harness.Binary(t), memoryDaemon: harness.MemoryDaemon(t),
		data: data, release: make(chan struct{}), commands: make(map[string]*command),
	}
	good, slow := archive("good"), archive("slow")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images/good.tar", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) })
	mux.HandleFunc("GET /images/slow.tar", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(slow)))
		_, _ = w.Write(slow[:len(slow)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.release:
			_, _ = w.Write(slow[len(slow)/2:])
		case <-req.Context().Done():
		}
	})
	r.site = httptest.NewServer(mux)
	if err := os.WriteFile(filepath.Join(env.WorkDir, "good.tar"), good, 0o644); err != nil {
		return nil, err
	}
	if err := writeCertificate(env.WorkDir); err != nil {
		return nil, err
	}
	env.Setenv("DATA", r.data)
	env.Setenv("SITE", r.site.URL)
	env.Setenv("GOOD_SUM", sum(good))
	env.Setenv("SLOW_SUM", sum(slow))
	env.Setenv("PATH", filepath.Dir(r.program)+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Defer(r.close)
	return r, nil
}

func (r *rig) close() {
	for _, c := range r.commands {
		_ = c.Process.Kill() // it may have ended
	}
	r.stop()
	r.open.Do(func() { close(r.release) })
	r.site.CloseClientConnections()
	r.site.Close()
	_ = os.RemoveAll(r.data) // a temporary folder
}

// start runs the daemon, at the address that it had before.
func (r *rig) start(args []string) error {
	if r.daemon != nil {
		args = append([]string{"-listen", strings.TrimPrefix(r.daemon.URL, "http://")}, args...)
	}
	d, err := e2e.Start(e2e.Options{Binary: r.memoryDaemon, Data: r.data, Args: append([]string{"-memory-reserve", "1mib"}, args...)})
	if err == nil {
		r.daemon = d
	}
	return err
}

func (r *rig) stop() {
	if r.daemon != nil {
		_ = r.daemon.Stop() // what it says is not the client's matter
	}
}

// launch runs a command line beside the script.
func (r *rig) launch(ts *testscript.TestScript, name string, args []string) {
	c := &command{Cmd: exec.Command(r.program, args...)}
	c.Dir, c.Stdout, c.Stderr = ts.MkAbs("."), &c.stdout, &c.stderr
	c.Env = append(os.Environ(), "OSX_BUILDER_HOST="+ts.Getenv("OSX_BUILDER_HOST"))
	ts.Check(c.Start())
	r.commands[name] = c
}

// finish waits for a command line that was launched, hands on what it wrote,
// and returns its exit code.
func (r *rig) finish(ts *testscript.TestScript, name string) int {
	c := r.commands[name]
	if c == nil {
		ts.Fatalf("no command %s was launched", name)
	}
	_ = c.Wait() // the exit code tells
	_, _ = io.WriteString(ts.Stdout(), c.stdout.String())
	_, _ = io.WriteString(ts.Stderr(), c.stderr.String())
	return c.ProcessState.ExitCode()
}

// tells waits until a command line that was launched has said something.
func (r *rig) tells(ts *testscript.TestScript, name, text string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c := r.commands[name]; strings.Contains(c.stdout.String()+c.stderr.String(), text) {
			return
		}
	}
	ts.Fatalf("%s has not said %q within a minute: %s", name, text, &r.commands[name].stderr)
}

func (r *rig) interrupt(name string) error { return r.commands[name].Process.Signal(syscall.SIGINT) }

// archive is an image whose machines are files.
func archive(name string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for file, text := range map[string]string{name + ".vmx": "guestOS = \"other\"\n", "disk.vmdk": strings.Repeat(name, 100_000)} {
		if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			panic(err) // memory
		}
		_, _ = w.Write([]byte(text))
	}
	_ = w.Close()
	return b.Bytes()
}

// writeCertificate writes a certificate for loopback, which signed itself, and
// its key.
func writeCertificate(dir string) error {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	c := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	for file, b := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: c.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(b), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
