package vmrun

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"osx-builder/vm"
	"osx-builder/vm/vmware"
)

// guestPatience is how long a reader of a machine's state waits for what the guest's tools say. A guest that answers
// needs about a tenth of it.
const guestPatience = time.Second

// guest is what VMware's tools in a guest say.
type guest struct {
	tools vm.Tools
	ip    string
}

// guestRead is a read of a guest's state, which can hang with the guest.
type guestRead struct {
	last  guest         // what the read before returned
	guest guest         // valid once done is closed
	done  chan struct{} // is closed at the end
}

// guests reads what the tools say, in the background, at most once at a time for each machine.
type guests struct {
	command *command
	running context.Context // until close
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex            // guards the fields below
	reads  map[string]*guestRead // the last one, by machine
	closed bool
}

func newGuests(c *command) *guests {
	g := &guests{command: c, reads: make(map[string]*guestRead)}
	g.running, g.stop = context.WithCancel(context.Background())
	return g
}

// state returns what the guest of a running machine says, or what it said last if it does not answer soon.
func (g *guests) state(m vm.Machine) guest {
	r, last := g.read(m)
	if r == nil {
		return last
	}
	timer := time.NewTimer(guestPatience)
	defer timer.Stop()
	select {
	case <-r.done:
		return r.guest
	case <-timer.C:
		return r.last
	}
}

// read starts a read, unless one runs or the driver is closed.
func (g *guests) read(m vm.Machine) (*guestRead, guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := guest{tools: vm.ToolsUnknown}
	if r := g.reads[m.ID]; r != nil {
		select {
		case <-r.done:
			last = r.guest
		default:
			return nil, r.last
		}
	}
	if g.closed {
		return nil, last
	}
	r := &guestRead{last: last, done: make(chan struct{})}
	g.reads[m.ID] = r
	g.wg.Go(func() {
		defer close(r.done)
		r.guest = g.ask(vmware.VMXPath(m))
	})
	return r, last
}

// ask calls vmrun. Before the tools run, both calls return errors.
func (g *guests) ask(path string) guest {
	limit := g.command.deadlines.Read
	state := guest{tools: vm.ToolsUnknown}
	out, err := g.command.call(g.running, "read the tools' state", limit, "checkToolsState", path)
	switch {
	case err != nil:
	case strings.TrimSpace(out) == "running":
		state.tools = vm.ToolsRunning
	case strings.TrimSpace(out) == "installed":
		state.tools = vm.ToolsNotRunning
	}
	out, err = g.command.call(g.running, "read the guest's address", limit, "getGuestIPAddress", path)
	if addr, parseErr := netip.ParseAddr(strings.TrimSpace(out)); err == nil && parseErr == nil {
		state.ip = addr.String()
	}
	return state
}

// forget drops what is known of a guest, because its machine is started or stopped.
func (g *guests) forget(m vm.Machine) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.reads, m.ID)
}

// background calls f, whose context ends when the driver is closed. The channel gets f's error.
func (g *guests) background(f func(ctx context.Context) error) <-chan error {
	answer := make(chan error, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		answer <- unavailable("the connection to VMware is closed")
		return answer
	}
	g.wg.Go(func() { answer <- f(g.running) })
	return answer
}

func (g *guests) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.stop()
	g.wg.Wait()
}
