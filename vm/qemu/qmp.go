package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	qmpSocket = "qmp"

	// qmpTimeout is how long QEMU is given to answer a few questions, which
	// takes it milliseconds; a stopped or hung process never answers.
	qmpTimeout = 2 * time.Second

	// qmpReply bounds what a QEMU that its guest took over can make the daemon
	// read in one conversation.
	qmpReply = 1 << 20
)

var errNoAnswer = fmt.Errorf("no answer after %v: %w", qmpTimeout, context.DeadlineExceeded)

// monitor is a short conversation with one QEMU over QMP
// (https://www.qemu.org/docs/master/interop/qmp-spec.html).
//
// It is not digitalocean/go-qemu's, whose calls know neither deadline nor
// context: to end one means to call Disconnect beside Connect, which race, and
// a reader of theirs is left behind when that goes wrong.
type monitor struct {
	requests *net.UnixConn
	replies  *json.Decoder
}

// talk opens the monitor of the machine in dir for f. It takes qmpTimeout at
// most, the wait for others who talk to the same machine included.
func (d *Driver) talk(ctx context.Context, dir string, f func(monitor) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, qmpTimeout, errNoAnswer)
	defer cancel()
	giveBack, err := d.monitors.take(ctx, dir)
	if err != nil {
		return err
	}
	defer giveBack()
	err = converse(ctx, filepath.Join(dir, qmpSocket), f)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// converse greets the QEMU that listens at path and lets f talk to it. The end
// of ctx ends the conversation.
func converse(ctx context.Context, path string, f func(monitor) error) error {
	plain, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	conn := plain.(*net.UnixConn)
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	m := monitor{conn, json.NewDecoder(io.LimitReader(conn, qmpReply))}
	var greeting struct{ QMP *struct{} }
	if err := m.replies.Decode(&greeting); err != nil {
		return fmt.Errorf("waiting for QEMU's greeting: %w", err)
	}
	if greeting.QMP == nil {
		return errors.New("what listens at the monitor's socket does not greet as QEMU does")
	}
	if err := m.ask("qmp_capabilities", nil); err != nil {
		return err
	}
	return f(m)
}

// ask runs a command and reads its answer into out, which may be nil.
func (m monitor) ask(command string, out any) error { return m.askWith(command, nil, nil, out) }

// askWith is ask with arguments, which may be nil, and with open files that
// QEMU gets.
func (m monitor) askWith(command string, arguments any, files []*os.File, out any) error {
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return fmt.Errorf("asking %s: %w", command, err)
	}
	var rights []byte
	for _, f := range files {
		rights = append(rights, unix.UnixRights(int(f.Fd()))...)
	}
	if _, _, err := m.requests.WriteMsgUnix(append(request, '\n'), rights, nil); err != nil {
		return fmt.Errorf("asking %s: %w", command, err)
	}
	for {
		var reply struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
			Event  string
		}
		if err := m.replies.Decode(&reply); err != nil {
			return fmt.Errorf("asking %s: %w", command, err)
		}
		switch {
		case reply.Event != "":
			continue // news that nobody asked for
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
