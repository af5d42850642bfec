// Package readiness finds out whether guests on QEMU's user network are up. That network has no leases to look at.
package readiness

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// timeout bounds a guest's answer to a connection, which takes about 20 ms even under emulation.
const timeout = 150 * time.Millisecond

// Prober probes guests in the background. Its methods may be called concurrently.
type Prober struct {
	runs func(ctx context.Context, dir string, pid int) bool

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	closed bool              // guarded by mu
	guests map[string]*guest // by the machine's folder; guarded by mu
}

// guest is what is known of the guest of one process. Its fields are guarded by Prober.mu.
type guest struct {
	pid     int
	probing bool
	ready   bool
}

// New returns a Prober. runs reports whether the process pid of the machine in dir runs its guest; a probe calls it,
// because a QEMU that ends also closes connections.
func New(runs func(ctx context.Context, dir string, pid int) bool) *Prober {
	p := &Prober{runs: runs, guests: map[string]*guest{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Ready reports whether the guest of the process pid of the machine in dir has answered at the host's port, or at
// another one in an earlier call. It does not wait: it begins a probe whose result a later call returns. A guest that has
// answered is not probed again, because each probe costs its server a connection.
func (p *Prober) Ready(dir string, pid, port int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.guests[dir]
	if g == nil || g.pid != pid {
		g = &guest{pid: pid}
		p.guests[dir] = g
	}
	if !g.ready && !g.probing && !p.closed {
		g.probing = true
		p.tasks.Go(func() { p.probe(g, dir, port) })
	}
	return g.ready
}

// Forget makes Ready probe the guest of the machine in dir again.
func (p *Prober) Forget(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.guests, dir)
}

// Close ends the probes. Ready begins none afterwards.
func (p *Prober) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.tasks.Wait()
}

func (p *Prober) probe(g *guest, dir string, port int) {
	ready := answers(p.ctx, port) && p.runs(p.ctx, dir, g.pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	g.probing, g.ready = false, ready
}

// answers connects to a forwarded port. QEMU accepts the connection and then connects to the guest. If the guest is up, it
// sends a greeting, or refuses, and QEMU closes the connection. Otherwise nothing comes.
func answers(ctx context.Context, port int) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil
}
