// Package probe finds out whether a service of a guest answers.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

const (
	// timeout bounds one probe. A guest under emulation may take a second to start a process for a request.
	timeout = 5 * time.Second

	// silence is how long a connection that QEMU forwards must stay open without a byte to count as accepted by the
	// guest. A guest that is up and refuses does so within a few milliseconds, within 100 ms under emulation.
	silence = time.Second

	// maxHeader is the largest header of a response, in bytes.
	maxHeader = 16 << 10
)

// Target is a TCP port of a guest, as this host reaches it.
type Target struct {
	Address string // host:port
	Path    string // of the HTTP request, with a leading slash; "" means that an accepted connection is enough

	// Forwarded is true if a process of this host accepts the connection and then connects to the guest. The guest must
	// be known to run.
	Forwarded bool
}

// Check connects to a target and, if it has a Path, sends one GET request, whose response must have a status from 200 to
// 399. It follows no redirect and uses no proxy. It returns nil if the target answers, and otherwise an error that says
// in one line what happened instead, or ctx's error. It takes at most 5 s, and may be called by many goroutines at once.
func Check(ctx context.Context, t Target) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	check := connect
	if t.Path != "" {
		check = get
	}
	err := check(limited, t)
	if ended := over(ctx); err != nil && ended != nil {
		return ended
	}
	return err
}

// over returns the error of a context that has ended, also in the moment in which its deadline has ended a connection
// but not the context itself yet.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

func connect(ctx context.Context, t Target) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return reason(ctx, err)
	}
	defer conn.Close()
	if !t.Forwarded {
		return nil
	}
	if err := conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 1))
	if n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		return over(ctx)
	}
	return errors.New("the guest closed the forwarded connection")
}

func get(ctx context.Context, t Target) error {
	client := http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.Address+t.Path, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return reason(ctx, err)
	}
	_ = res.Body.Close() // the body does not matter
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("GET %s returned %s", t.Path, http.StatusText(res.StatusCode)+fmt.Sprintf(" (%d)", res.StatusCode))
	}
	return nil
}

// reason shortens the error of a connection to the part that differs.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil || os.IsTimeout(err) {
		return fmt.Errorf("no answer within %v", timeout)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if sys, ok := errors.AsType[*os.SyscallError](op.Err); ok {
			return sys.Err
		}
		return op.Err
	}
	return errors.New("the answer is not HTTP")
}
