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

	// monitorTimeout bounds one exchange with QEMU's monitor. QEMU answers within
	// milliseconds, but on a busy host an emulated machine holds the lock that
	// its monitor needs for seconds. A process that is stopped never answers.
	monitorTimeout = 30 * time.Second

	// qmpReply bounds what a QEMU that its guest took over can make the daemon
	// read over one connection.
	qmpReply = 1 << 20
)

// monitor is a connection to one QEMU's monitor, which speaks QMP
// (https://www.qemu.org/docs/master/interop/qmp-spec.html).
//
// It is not digitalocean/go-qemu's, whose calls know neither deadline nor
// context: to end one means to call Disconnect beside Connect, which race, and
// a reader of theirs is left behind when that goes wrong.
type monitor struct {
	requests *net.UnixConn
	replies  *json.Decoder
}

// withMonitor calls f with the monitor of the machine in dir. It takes
// monitorTimeout at most, the wait for others who use the monitor included.
func (d *Driver) withMonitor(ctx context.Context, dir string, f func(monitor) error) error {
	ctx, cancel := withMonitorTimeout(ctx, monitorTimeout)
	defer cancel()
	unlock, err := d.monitors.lock(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	err = dial(ctx, filepath.Join(dir, qmpSocket), f)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// withMonitorTimeout returns a context whose cause says that QEMU did not
// answer within d.
func withMonitorTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer after %v: %w", d.Round(time.Millisecond), context.DeadlineExceeded))
}

// dial greets the QEMU that listens at path and calls f with its monitor. The
// connection ends with f or with ctx.
func dial(ctx context.Context, path string, f func(monitor) error) error {
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
