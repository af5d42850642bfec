// Package qmp is a client of QEMU's monitor, which speaks QMP
// (https://www.qemu.org/docs/master/interop/qmp-spec.html), and of the guest
// agent, whose protocol is similar.
//
// It replaces digitalocean/go-qemu, whose calls take neither a deadline nor a
// context.
package qmp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"osx-builder/vm/qemu/keyedmutex"
)

const (
	// Timeout bounds one exchange with a monitor. QEMU answers within
	// milliseconds, but on a busy host an emulated machine holds the lock that
	// its monitor needs for seconds. A stopped process never answers.
	Timeout = 30 * time.Second

	// connectEvery is the time between two attempts to connect.
	connectEvery = 5 * time.Millisecond

	// maxReplies bounds the bytes that the daemon reads over one connection, in
	// case a guest took over its QEMU.
	maxReplies = 1 << 20
)

// Client connects to the monitors of any number of QEMUs. A monitor serves one
// connection and lets the next one wait without notice, so concurrent callers
// of one monitor queue here, where they can give up. The zero value is ready
// for use.
type Client struct {
	sockets keyedmutex.Mutex // by path
}

// WithMonitor connects to the monitor that listens at socket and calls f with
// it. It takes at most [Timeout], including the wait for other callers. The
// connection ends with f or with ctx.
func (c *Client) WithMonitor(ctx context.Context, socket string, f func(*Monitor) error) error {
	ctx, cancel := WithTimeout(ctx, Timeout)
	defer cancel()
	unlock, err := c.sockets.Lock(ctx, socket)
	if err != nil {
		return err
	}
	defer unlock()
	err = dial(ctx, socket, f)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// HungUp reports whether err says that QEMU does not listen or has closed the connection. A QEMU
// that ends does both before its process is gone.
func HungUp(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && slices.ContainsFunc(
		[]error{unix.ECONNRESET, unix.EPIPE, unix.ECONNREFUSED, unix.ENOENT},
		func(e error) bool { return errors.Is(op, e) },
	)
}

// Sockets returns the number of monitors that are in use.
func (c *Client) Sockets() int { return c.sockets.Len() }

// WithTimeout returns a context whose cause says that QEMU did not answer
// within d.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer after %v: %w", d.Round(time.Millisecond), context.DeadlineExceeded))
}

// Monitor is a connection to one QEMU's monitor. It is valid until the function
// that got it returns.
type Monitor struct {
	requests *net.UnixConn
	replies  *json.Decoder
}

// dial connects to the QEMU that listens at path, negotiates and calls f.
func dial(ctx context.Context, path string, f func(*Monitor) error) error {
	conn, err := connect(ctx, path)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	m := &Monitor{conn, json.NewDecoder(io.LimitReader(conn, maxReplies))}
	if err := m.awaitGreeting(); err != nil {
		return err
	}
	if err := m.Ask("qmp_capabilities", nil); err != nil {
		return err
	}
	return f(m)
}

// connect connects to a socket of QEMU. QEMU serves one client and lets one or two wait. Clients
// that gave up are among these until QEMU, if it is busy, notices, and meanwhile Linux refuses
// others; so connect tries until ctx ends.
func connect(ctx context.Context, path string) (*net.UnixConn, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		select {
		case <-time.After(connectEvery):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// awaitGreeting reads QEMU's greeting. What QEMU had to say to an earlier client, which left before, may come first.
func (m *Monitor) awaitGreeting() error {
	for {
		var message struct {
			QMP, Event    any
			Return, Error json.RawMessage
		}
		if err := m.replies.Decode(&message); err != nil {
			return fmt.Errorf("waiting for QEMU's greeting: %w", err)
		}
		if message.QMP != nil {
			return nil
		}
		if message.Event == nil && message.Return == nil && message.Error == nil {
			return errors.New("the program at the monitor's socket does not greet as QEMU does")
		}
	}
}

// Ask runs a command and decodes its answer into out, which may be nil.
func (m *Monitor) Ask(command string, out any) error { return m.AskWith(command, nil, nil, out) }

// AskWith is [Monitor.Ask] with arguments, which may be nil, and with open files
// that it passes to QEMU.
func (m *Monitor) AskWith(command string, arguments any, files []*os.File, out any) error {
	id := newID()
	text, err := encode(command, arguments, id)
	if err != nil {
		return err
	}
	var rights []byte
	for _, f := range files {
		rights = append(rights, unix.UnixRights(int(f.Fd()))...)
	}
	if _, _, err := m.requests.WriteMsgUnix(text, rights, nil); err != nil {
		return fmt.Errorf("asking %s: %w", command, err)
	}
	return m.answer(command, id, out)
}

// Question is a command without arguments, and what its answer is decoded into.
type Question struct {
	Command string
	Out     any
}

// AskAll is [Monitor.Ask] for several commands, which QEMU runs in this order. It sends them at once: QEMU, which may be
// busy with its guest, then answers them in one go.
func (m *Monitor) AskAll(questions ...Question) error {
	ids := make([]string, len(questions))
	var all []byte
	for i, q := range questions {
		ids[i] = newID()
		text, err := encode(q.Command, nil, ids[i])
		if err != nil {
			return err
		}
		all = append(all, text...)
	}
	if _, err := m.requests.Write(all); err != nil {
		return fmt.Errorf("asking %s: %w", questions[0].Command, err)
	}
	for i, q := range questions {
		if err := m.answer(q.Command, ids[i], q.Out); err != nil {
			return err
		}
	}
	return nil
}

// newID returns the ID of a command. It is short, because QEMU reads a command byte by byte.
func newID() string { return rand.Text()[:6] }

// encode returns a command as QEMU reads it.
func encode(command string, arguments any, id string) ([]byte, error) {
	text, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        string `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", command, err)
	}
	return append(text, '\n'), nil
}

// answer reads the answer to the command with the ID.
func (m *Monitor) answer(command, id string, out any) error {
	for {
		var reply struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
			Event  string
			ID     string
		}
		if err := m.replies.Decode(&reply); err != nil {
			return fmt.Errorf("asking %s: %w", command, err)
		}
		switch {
		case reply.Event != "":
			continue // QEMU sends events at any time
		case reply.ID != "" && reply.ID != id:
			continue // it is the answer to a client that did not wait for it
		case reply.Error != nil:
			return fmt.Errorf("asking %s: %s", command, reply.Error.Desc)
		case out == nil:
			return nil
		}
		if err := json.Unmarshal(reply.Return, out); err != nil {
			return fmt.Errorf("reading the answer to %s: %w", command, err)
		}
		return nil
	}
}
