package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"osx-builder/vm"
)

// readinessTimeout is how long a guest is given to answer a connection, which
// takes it about 20 ms even under emulation. One that is not up holds up every
// Inspect for this long.
const readinessTimeout = 150 * time.Millisecond

// isReady reports whether the guest of the process pid answers on QEMU's user
// network, where there is no lease to look at. Once it did, it is not asked
// again: each time costs its SSH server a connection.
func (d *Driver) isReady(ctx context.Context, dir string, pid int, l attachment) bool {
	if known, _ := d.ready.Load(dir); known == pid {
		return true
	}
	if len(l.Forwards) == 0 || !probe(ctx, l.Forwards[0].Host) {
		return false
	}
	// A QEMU that ends hangs up too.
	if live, err := d.queries.read(ctx, dir, pid); err != nil || live.power != vm.PoweredOn {
		return false
	}
	d.ready.Store(dir, pid)
	return true
}

// probe connects to a forwarded port. QEMU itself takes the connection and then
// asks the guest: one that is not up leaves it open and silent, and one that is
// greets, or refuses, whereupon QEMU hangs up.
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
