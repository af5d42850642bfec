// Package e2e runs the built daemon as a process and plays the parts of the
// others: its clients, an image server, a callback's receiver.
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

// startTime is how long this package waits for the daemon's first answer, and
// from SIGTERM to its end. It guards against hanging only: a busy host may take
// a hundred times longer than an idle one.
const startTime = 3 * time.Minute

// answerTime is how long it waits for an answer of the daemon's.
const answerTime = 10 * time.Minute

// quickExit spares a program with the race detector in it the second that it
// would wait for further reports at its end.
const quickExit = "GORACE=atexit_sleep_ms=50"

// Options says how to run the daemon.
type Options struct {
	Binary string      // path of osx-builder
	Data   string      // its -data
	Args   []string    // further flags
	Env    []string    // the whole environment; nil means this process's
	Log    io.Writer   // gets what the daemon logs, as text lines; may be nil
	Disk   *FaultyDisk // can make writes below Data fail; may be nil
}

// Daemon is a running daemon.
type Daemon struct {
	URL  string // http://127.0.0.1:PORT
	Data string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // of the process
	log  logs
}

// Start runs the daemon on a free port and returns once it listens. An error
// carries what the daemon said.
func Start(o Options) (*Daemon, error) {
	args := append([]string{"-data", o.Data, "-listen", "127.0.0.1:0", "-log-format", "json"}, o.Args...)
	d := &Daemon{Data: o.Data, cmd: exec.Command(o.Binary, args...), done: make(chan struct{})}
	d.cmd.Env = append(d.cmd.Environ(), quickExit)
	if o.Env != nil {
		d.cmd.Env = append(o.Env[:len(o.Env):len(o.Env)], quickExit)
	}
	d.log = logs{out: o.Log, url: make(chan string, 1)}
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
	case <-time.After(startTime):
		return nil, errors.Join(fmt.Errorf("the daemon did not listen within %v: %s", startTime, d.log.String()), d.Kill())
	}
}

// launch starts the process.
func (d *Daemon) launch(disk *FaultyDisk) error {
	if disk == nil {
		return d.cmd.Start()
	}
	watch, err := disk.wrap(d.cmd, d.Data)
	if err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	return watch()
}

// Stop asks the daemon to end, as service managers do, and waits for it.
func (d *Daemon) Stop() error {
	if err := d.end(syscall.SIGTERM); err != nil {
		return err
	}
	return d.err
}

// Quit ends the daemon by SIGQUIT, after which its log tells of each goroutine.
func (d *Daemon) Quit() error { return d.end(syscall.SIGQUIT) }

// end sends a signal and waits for the daemon's end.
func (d *Daemon) end(s syscall.Signal) error {
	_ = d.cmd.Process.Signal(s) // it may have ended
	select {
	case <-d.done:
		return nil
	case <-time.After(startTime):
		return errors.Join(fmt.Errorf("the daemon did not end within %v of %v", startTime, s), d.Kill())
	}
}

// Kill ends the daemon as a crash does: kill -9.
func (d *Daemon) Kill() error {
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
	return nil
}

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log returns what the daemon has logged so far.
func (d *Daemon) Log() string { return d.log.String() }

var client = http.Client{Timeout: answerTime}

// Answer is the daemon's answer to a request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request. A body that is not nil is sent with the type of contentType.
func (d *Daemon) Do(method, path, contentType string, body []byte) (Answer, error) {
	req, err := http.NewRequest(method, d.URL+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return d.Send(req)
}

// Send sends a request that the caller has made.
func (d *Daemon) Send(req *http.Request) (Answer, error) {
	res, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return Answer{res.StatusCode, res.Header, b}, err
}

// JSON decodes the answer's body into v.
func (a Answer) JSON(v any) error {
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("answer %d is not JSON: %w: %s", a.Status, err, a.Body)
	}
	return nil
}

// logs reads the daemon's log: JSON lines, and plain ones where it fails.
type logs struct {
	out io.Writer
	url chan string

	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logs) read(r io.Reader) {
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

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
