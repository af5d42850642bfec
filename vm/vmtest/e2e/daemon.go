// Package e2e runs the built daemon as a process. It has a client, an image server
// and a receiver of callbacks.
package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startTimeout bounds the time until the daemon listens, and the time from SIGTERM
// to its end. It only ends tests that hang: a busy host may take a hundred times
// longer than an idle one.
const startTimeout = 3 * time.Minute

// requestTimeout bounds a request to the daemon.
const requestTimeout = 10 * time.Minute

// quickExit shortens the second for which a program with the race detector waits
// for further reports when it exits.
const quickExit = "GORACE=atexit_sleep_ms=50"

// Options says how to run the daemon.
type Options struct {
	Binary string      // path of osx-builder
	Data   string      // its -data
	Args   []string    // further flags
	Env    []string    // the whole environment; nil means this process's
	Log    io.Writer   // gets the lines of the daemon's log; may be nil
	Disk   *FaultyDisk // lets writes below Data fail; may be nil
}

// Daemon is a running daemon.
type Daemon struct {
	URL  string // http://127.0.0.1:PORT
	Data string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // from waiting for the process
	log  logReader
}

// Start starts the daemon on a free port and returns when the daemon listens. An
// error contains the daemon's log.
func Start(o Options) (*Daemon, error) {
	args := append([]string{"-data", o.Data, "-listen", "127.0.0.1:0", "-log-format", "json"}, o.Args...)
	d := &Daemon{Data: o.Data, cmd: exec.Command(o.Binary, args...), done: make(chan struct{})}
	d.cmd.Env = append(d.cmd.Environ(), quickExit)
	if o.Env != nil {
		d.cmd.Env = append(o.Env[:len(o.Env):len(o.Env)], quickExit)
	}
	d.log = logReader{out: o.Log, url: make(chan string, 1)}
	pipe, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := d.launch(o.Disk); err != nil {
		return nil, err
	}
	go func() {
		d.log.read(pipe)
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	select {
	case d.URL = <-d.log.url:
		return d, nil
	case <-d.done:
		return nil, fmt.Errorf("the daemon ended (%w): %s", d.err, d.log.String())
	case <-time.After(startTimeout):
		return nil, errors.Join(fmt.Errorf("the daemon did not listen within %v: %s", startTimeout, d.log.String()), d.Kill())
	}
}

// launch starts the process.
func (d *Daemon) launch(disk *FaultyDisk) error {
	if disk == nil {
		return d.cmd.Start()
	}
	afterStart, err := disk.wrap(d.cmd, d.Data)
	if err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	return afterStart()
}

// Stop sends SIGTERM, as service managers do, and waits until the daemon ends.
func (d *Daemon) Stop() error {
	if err := d.signalAndWait(syscall.SIGTERM); err != nil {
		return err
	}
	return d.err
}

// Quit sends SIGQUIT and waits until the daemon ends. Its log then has the stack of
// each goroutine.
func (d *Daemon) Quit() error { return d.signalAndWait(syscall.SIGQUIT) }

// signalAndWait sends a signal and waits until the daemon ends.
func (d *Daemon) signalAndWait(s syscall.Signal) error {
	_ = d.cmd.Process.Signal(s) // it may have ended
	select {
	case <-d.done:
		return nil
	case <-time.After(startTimeout):
		return errors.Join(fmt.Errorf("the daemon did not end within %v of %v", startTimeout, s), d.Kill())
	}
}

// Kill kills the daemon with SIGKILL.
func (d *Daemon) Kill() error {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
	return nil
}

// PID returns the daemon's process ID.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log returns the daemon's log up to now.
func (d *Daemon) Log() string { return d.log.String() }

var client = http.Client{Timeout: requestTimeout}

// Response is the daemon's response to a request.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request. An empty contentType sends no Content-Type.
func (d *Daemon) Do(method, path, contentType string, body []byte) (Response, error) {
	req, err := http.NewRequest(method, d.URL+path, bytes.NewReader(body))
	if err != nil {
		return Response{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return d.Send(req)
}

// Send sends the request.
func (d *Daemon) Send(req *http.Request) (Response, error) {
	res, err := client.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return Response{res.StatusCode, res.Header, b}, err
}

// JSON decodes the response's body into v.
func (a Response) JSON(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("the body of response %d is not JSON: %w: %s", a.Status, err, a.Body)
	}
	return nil
}

// logReader reads the daemon's log. Its lines are JSON, except for those that the
// daemon prints before it opens its log or when it crashes.
type logReader struct {
	out io.Writer
	url chan string

	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logReader) read(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var line struct{ Msg, URL string }
		if json.Unmarshal(s.Bytes(), &line) == nil && line.Msg == "listening" {
			l.url <- line.URL
		}
		l.mu.Lock()
		l.text.WriteString(s.Text() + "\n")
		l.mu.Unlock()
		if l.out != nil {
			fmt.Fprintln(l.out, s.Text())
		}
	}
	_, _ = io.Copy(io.Discard, r) // a line too long to scan must not block the daemon
}

func (l *logReader) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
