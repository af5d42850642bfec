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

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"osx-builder/vm/vmtest/e2e"
	"osx-builder/vm/vmtest/harness"
)

// scriptEnv is the environment of a script: a daemon with the in-memory driver, and a web server with images.
type scriptEnv struct {
	raced, memoryDaemon string // paths of the programs with the race detector

	data    string
	site    *httptest.Server
	release chan struct{} // closed when the rest of the slow image may be sent
	once    sync.Once

	daemon   *e2e.Daemon
	commands map[string]*command
}

// command is a command line that runs in the background.
type command struct {
	*exec.Cmd
	stdout, stderr buffer
	read           chan struct{} // closed when the terminal's output is read; nil without a terminal
}

// buffer is the output of a command. It can be read while the command runs.
type buffer struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

// newScriptEnv starts the web server and sets the script's environment variables.
func newScriptEnv(t *testing.T, env *testscript.Env, program string) (*scriptEnv, error) {
	data, err := os.MkdirTemp("", "osxb") // short, because it will contain sockets
	if err != nil {
		return nil, err
	}
	e := &scriptEnv{
		raced: harness.Binary(t), memoryDaemon: harness.MemoryDaemon(t),
		data: data, release: make(chan struct{}), commands: make(map[string]*command),
	}
	good, slow := archive("good"), archive("slow")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /images/good.tar", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) })
	mux.HandleFunc("GET /images/{name}", func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasPrefix(req.PathValue("name"), "slow") {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(slow)))
		_, _ = w.Write(slow[:len(slow)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-e.release:
			_, _ = w.Write(slow[len(slow)/2:])
		case <-req.Context().Done():
		}
	})
	e.site = httptest.NewServer(mux)
	if err := os.WriteFile(filepath.Join(env.WorkDir, "good.tar"), good, 0o644); err != nil {
		return nil, err
	}
	if err := writeCertificate(env.WorkDir); err != nil {
		return nil, err
	}
	env.Setenv("DATA", e.data)
	env.Setenv("SITE", e.site.URL)
	env.Setenv("GOOD_SUM", sum(good))
	env.Setenv("SLOW_SUM", sum(slow))
	env.Setenv("SHORT_SUM", sum(good)[:12])
	env.Setenv("PATH", filepath.Dir(program)+string(filepath.ListSeparator)+env.Getenv("PATH"))
	env.Defer(e.close)
	return e, nil
}

func (e *scriptEnv) close() {
	for _, c := range e.commands {
		_ = c.Process.Kill() // it may have ended
	}
	e.stop()
	e.releaseImage()
	e.site.CloseClientConnections()
	e.site.Close()
	_ = os.RemoveAll(e.data) // a temporary folder
}

// start starts the daemon, at its previous address if it has run before.
func (e *scriptEnv) start(args []string) error {
	if e.daemon != nil {
		args = append([]string{"-listen", strings.TrimPrefix(e.daemon.URL, "http://")}, args...)
	}
	d, err := e2e.Start(e2e.Options{Binary: e.memoryDaemon, Data: e.data, Args: append([]string{"-memory-reserve", "1mib"}, args...)})
	if err == nil {
		e.daemon = d
	}
	return err
}

// releaseImage sends the rest of the slow image.
func (e *scriptEnv) releaseImage() { e.once.Do(func() { close(e.release) }) }

func (e *scriptEnv) stop() {
	if e.daemon != nil {
		_ = e.daemon.Stop() // its exit code does not matter here
	}
}

// plainProgram returns the path of the program without the race detector, under its own name, which completion scripts
// call. They call it hundreds of times, and with the race detector its start takes ten times as long.
func plainProgram(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "osx-builder")
	harness.Must(t, os.Symlink(harness.PlainBinary(t), path))
	return path
}

// launch starts a command line in the background.
func (e *scriptEnv) launch(ts *testscript.TestScript, name string, args []string) {
	c := e.command(ts, name, args)
	c.Stdout, c.Stderr = &c.stdout, &c.stderr
	ts.Check(c.Start())
}

// command returns a command line with the script's environment.
func (e *scriptEnv) command(ts *testscript.TestScript, name string, args []string) *command {
	c := &command{Cmd: exec.Command(e.raced, args...)}
	c.Dir = ts.MkAbs(".")
	c.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "TERM=xterm", "NO_COLOR="+ts.Getenv("NO_COLOR"), "OSX_BUILDER_HOST="+ts.Getenv("OSX_BUILDER_HOST"))
	e.commands[name] = c
	return c
}

// launchOnTerminal starts a command line in the background on a terminal of 80 columns, on which the user types input.
func (e *scriptEnv) launchOnTerminal(ts *testscript.TestScript, name, input string, args []string) {
	c := e.command(ts, name, args)
	terminal, err := pty.StartWithSize(c.Cmd, &pty.Winsize{Rows: 24, Cols: 80})
	ts.Check(err)
	c.read = make(chan struct{})
	go func() {
		defer close(c.read)
		defer terminal.Close()
		_, _ = io.Copy(&c.stdout, terminal) // ends when the command ends
	}()
	_, err = io.WriteString(terminal, input)
	ts.Check(err)
}

// finish waits for a launched command line, copies its output to the script, and returns its exit code.
func (e *scriptEnv) finish(ts *testscript.TestScript, name string) int {
	c := e.commands[name]
	if c == nil {
		ts.Fatalf("command %s was not launched", name)
	}
	_ = c.Wait() // the exit code is checked instead
	if c.read != nil {
		<-c.read
	}
	_, _ = io.WriteString(ts.Stdout(), strings.ReplaceAll(c.stdout.String(), "\r\n", "\n"))
	_, _ = io.WriteString(ts.Stderr(), c.stderr.String())
	return c.ProcessState.ExitCode()
}

// expect waits until a launched command line has printed text.
func (e *scriptEnv) expect(ts *testscript.TestScript, name, text string) {
	for deadline := time.Now().Add(harness.Timeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c := e.commands[name]; strings.Contains(c.stdout.String()+c.stderr.String(), text) {
			return
		}
	}
	ts.Fatalf("%s did not print %q within a minute: %s", name, text, &e.commands[name].stderr)
}

func (e *scriptEnv) interrupt(name string) error {
	return e.commands[name].Process.Signal(syscall.SIGINT)
}

// archive returns an image for the in-memory driver, with the same bytes each time.
func archive(name string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct{ name, text string }{{name + ".vmx", "guestOS = \"other\"\n"}, {"disk.vmdk", strings.Repeat(name, 100_000)}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Typeflag: tar.TypeReg}); err != nil {
			panic(err) // writing to memory cannot fail
		}
		_, _ = w.Write([]byte(f.text))
	}
	_ = w.Close()
	return b.Bytes()
}

// writeCertificate writes a self-signed certificate for loopback and its key.
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
