package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"time"
)

// pulseTimeout is how long a guest is given to answer a connection, which
// takes it about 20 ms even under emulation. One that is not up holds up every
// Inspect for this long.
const pulseTimeout = 150 * time.Millisecond

// hasPulse says whether the guest of the process pid answers on QEMU's user
// network, where there is no lease to look at. Once it did, it is not asked
// again: each time costs its SSH server a connection.
func (d *Driver) hasPulse(ctx context.Context, dir string, pid int, l link) bool {
	if known, _ := d.pulses.Load(dir); known == pid {
		return true
	}
	if len(l.Forwards) == 0 || !feelPulse(ctx, l.Forwards[0].Host) {
		return false
	}
	d.pulses.Store(dir, pid)
	return true
}

// feelPulse connects to a forwarded port. QEMU itself takes the connection and
// then asks the guest: one that is not up leaves it open and silent, and one
// that is greets, or refuses, whereupon QEMU hangs up.
func feelPulse(ctx context.Context, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, pulseTimeout)
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
