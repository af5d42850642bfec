package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"osx-builder/vm/probe"
)

// The bounds of a Request's ReadyTimeout.
const (
	DefaultReadyTimeout = 5 * time.Minute
	MaxReadyTimeout     = time.Hour
)

// maxConsoleEnd is the largest part of a console, in bytes, that an error shows.
const maxConsoleEnd = 2 << 10

// ReadyWhen is a service of the guest that must answer before the machine is ready.
type ReadyWhen struct {
	Port int    `json:"port"`           // TCP, 1 to 65535
	HTTP string `json:"http,omitempty"` // path of a GET request that must succeed; "" means that an accepted connection is enough
}

// parseReadyWhen checks the service that a request waits for, and for how long: seconds, 0 if the request does not say.
func parseReadyWhen(w *ReadyWhen, timeout time.Duration, p *problems) (seconds int) {
	if timeout < 0 || timeout > MaxReadyTimeout {
		p.add(readyTimeoutError(fmt.Sprintf("%q", readable(timeout))))
	}
	if w == nil {
		if timeout != 0 {
			p.add(&Error{
				Code: CodeInvalidField, Field: "ready_timeout",
				Message: `ready_timeout needs ready_when, which says what to wait for, such as {"port": 22}`,
			})
		}
		return 0
	}
	if w.Port < 1 || w.Port > 65535 {
		p.add(fieldError("ready_when.port", fmt.Sprint(w.Port), "from 1 to 65535"))
	}
	if u, err := url.ParseRequestURI(w.HTTP); w.HTTP != "" && (err != nil || w.HTTP[0] != '/' || u.Host != "" || len(w.HTTP) > maxURL) {
		p.add(fieldError("ready_when.http", fmt.Sprintf("%q", w.HTTP), `the path of a URL, such as "/health"`))
	}
	return int((timeout + time.Second - 1) / time.Second)
}

func (s spec) readyTimeout() time.Duration {
	if s.ReadySeconds == 0 {
		return DefaultReadyTimeout
	}
	return time.Duration(s.ReadySeconds) * time.Second
}

// forward returns the ports of the guest that the host must reach: those that were asked for, and that of ReadyWhen.
func (s spec) forward() []int {
	if s.ReadyWhen == nil || slices.Contains(s.Forward, s.ReadyWhen.Port) {
		return s.Forward
	}
	return append(slices.Clone(s.Forward), s.ReadyWhen.Port)
}

// waitForService waits until the guest has an address and the service that the request names answers there. Unlike
// waitForGuest it fails if that takes too long.
func (c *creation) waitForService(ctx context.Context, vm Machine) error {
	limit := c.record.Spec.readyTimeout()
	noAddress := errors.New("the guest had no address")
	last := noAddress
	end := c.poll(ctx, vm, limit, func(ctx context.Context, st Status, err error) bool {
		if err == nil {
			if !st.Up || st.IP == "" {
				return false
			}
			if err = c.checkService(ctx, st); last == noAddress {
				last = errors.New("no answer")
			}
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		return err == nil
	})
	if end == errTooLong {
		return c.notReady(ctx, vm, limit, last)
	}
	return end
}

// checkService probes the service once.
func (c *creation) checkService(ctx context.Context, st Status) error {
	w := c.record.Spec.ReadyWhen
	t := probe.Target{Address: net.JoinHostPort(st.IP, strconv.Itoa(w.Port)), Path: w.HTTP}
	for _, f := range st.Forwards {
		if f.Guest == w.Port {
			t.Address, t.Forwarded = net.JoinHostPort(st.IP, strconv.Itoa(f.Host)), true
		}
	}
	return probe.Check(ctx, t)
}

// notReady is the error for a guest whose service did not answer in time.
func (c *creation) notReady(ctx context.Context, vm Machine, limit time.Duration, last error) error {
	w := c.record.Spec.ReadyWhen
	what := fmt.Sprintf("port %d", w.Port)
	if w.HTTP != "" {
		what += fmt.Sprintf(" (GET %s)", w.HTTP)
	}
	message := last.Error()
	if e := asError(last); e != nil {
		message = e.Message
	}
	return &Error{
		Code: CodeGuestNotReady, Console: c.consoleEnd(ctx, vm),
		Message: fmt.Sprintf("%s of the guest did not answer within %s: %s; check that the guest starts the service, or wait longer with ready_timeout", what, readable(limit), message),
	}
}

// consoleEnd returns the printable end of the guest's console, or "" if there is none.
func (c *creation) consoleEnd(ctx context.Context, vm Machine) string {
	d, ok := c.vms.opts.Driver.(Consoler)
	if !ok {
		return ""
	}
	f, err := d.Console(ctx, vm)
	if err != nil {
		return ""
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	if _, err := f.Seek(max(0, size-maxConsoleEnd), io.SeekStart); err != nil {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConsoleEnd))
	if err != nil {
		return ""
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), ""))
	if size > maxConsoleEnd {
		_, text, _ = strings.Cut(text, "\n") // the first line is cut
	}
	return strings.TrimSpace(text)
}
