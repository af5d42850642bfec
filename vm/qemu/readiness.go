package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"osx-builder/vm"
)

// readinessTimeout bounds a guest's answer to a connection, which takes about
// 20 ms even under emulation. A guest that is not up delays every Inspect by this
// long.
const readinessTimeout = 150 * time.Millisecond

// readinessProbe finds out whether guests on QEMU's user network are up. That
// network has no leases to look at.
type readinessProbe struct {
	queries *stateQueries
	ready   sync.Map // process id whose guest answered, by Machine.Dir
}

// isReady reports whether the guest of the process pid has answered. It does not
// probe a guest again that has, because each probe costs the guest's SSH server a
// connection.
func (p *readinessProbe) isReady(ctx context.Context, dir string, pid int, l attachment) bool {
	if known, _ := p.ready.Load(dir); known == pid {
		return true
	}
	if len(l.Forwards) == 0 || !probe(ctx, l.Forwards[0].Host) {
		return false
	}
	// A QEMU that ends also closes the connection.
	if live, err := p.queries.read(ctx, dir, pid); err != nil || live.power != vm.PoweredOn {
		return false
	}
	p.ready.Store(dir, pid)
	return true
}

// forget makes isReady probe the guest of the machine in dir again.
func (p *readinessProbe) forget(dir string) { p.ready.Delete(dir) }

// probe connects to a forwarded port. QEMU accepts the connection and then
// connects to the guest. If the guest is up, it sends a greeting, or refuses, and
// QEMU closes the connection. Otherwise nothing comes.
func probe(ctx context.Context, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, readinessTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
