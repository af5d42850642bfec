package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"osx-builder/vm/qemu/keyedmutex"
)

const (
	// AgentTimeout bounds one request to a guest agent. An agent answers within
	// milliseconds even under emulation. If it does not answer, it delays its
	// caller by this long.
	AgentTimeout = 500 * time.Millisecond

	// maxAgentReplies bounds the bytes that a guest can make the daemon read.
	maxAgentReplies = 1 << 20
)

// The errors of a request to an agent that listens.
var (
	errUnanswered = errors.New("the guest agent did not answer")
	errRefused    = errors.New("the guest agent refused")
	errHungUp     = errors.New("QEMU closed the connection to the guest agent before the request")
)

// Interface is one network interface of a guest.
type Interface struct {
	MAC       string `json:"hardware-address"`
	Addresses []struct {
		IP string `json:"ip-address"`
	} `json:"ip-addresses"`
}

// Agents asks the agents of any number of guests. It keeps the connection to an agent
// that has answered: while QEMU has no client, qemu-ga finds its port closed, and looks
// again ten times a second. That costs an emulated guest a hundredth of a processor, and
// makes each answer up to 100 ms late. The zero value is ready for use.
type Agents struct {
	shared singleflight.Group // by socket and process
	busy   keyedmutex.Mutex   // by socket: an agent serves one client at a time

	mu   sync.Mutex
	kept map[string]net.Conn // by socket; guarded by mu
}

// Release closes the connection to an agent, if there is one. Call it when the guest's
// process has ended, when its socket was removed, or when another client is to use the
// agent. A request that is under way keeps its connection, but not for a socket that
// was removed.
func (a *Agents) Release(socket string) {
	if conn := a.take(socket); conn != nil {
		_ = conn.Close()
	}
}

// Close closes all connections. Later requests open new ones.
func (a *Agents) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, conn := range a.kept {
		_ = conn.Close()
	}
	clear(a.kept)
}

func (a *Agents) take(socket string) net.Conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	conn := a.kept[socket]
	delete(a.kept, socket)
	return conn
}

func (a *Agents) keep(socket string, conn net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kept == nil {
		a.kept = make(map[string]net.Conn)
	}
	a.kept[socket] = conn
}

// Interfaces returns the guest's network interfaces. socket belongs to the
// agent of a guest in the process pid. Concurrent callers share an answer.
func (a *Agents) Interfaces(ctx context.Context, socket string, pid int) ([]Interface, error) {
	answer, err, _ := a.shared.Do(fmt.Sprint(socket, "\x00", pid), func() (any, error) {
		// Other callers wait for this answer, so it does not end with the first
		// caller's context.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AgentTimeout)
		defer cancel()
		return a.askInterfaces(ctx, socket)
	})
	interfaces, _ := answer.([]Interface)
	return interfaces, err
}

func (a *Agents) askInterfaces(ctx context.Context, socket string) ([]Interface, error) {
	var interfaces []Interface
	err := a.ask(ctx, socket, `{"execute":"guest-network-get-interfaces"}`, &interfaces)
	if errors.Is(err, errRefused) {
		return nil, nil // the agent runs and cannot list any
	}
	return interfaces, err
}

// Ping returns nil once the agent answers. ctx must have a deadline.
func (a *Agents) Ping(ctx context.Context, socket string) error {
	return a.ask(ctx, socket, `{"execute":"guest-ping"}`, nil)
}

// ShutDown asks the agent to shut the guest down. An agent that obeys does not
// answer this request.
func (a *Agents) ShutDown(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, AgentTimeout)
	defer cancel()
	err := a.ask(ctx, socket, `{"execute":"guest-shutdown"}`, nil)
	if errors.Is(err, errUnanswered) {
		return nil
	}
	return err
}

// ask sends the agent one request and decodes its answer into out, which may be nil. ctx
// must have a deadline.
func (a *Agents) ask(ctx context.Context, socket, request string, out any) error {
	return a.askLater(ctx, socket, func() string { return request }, out)
}

// askLater is ask for a request that is made once the agent listens.
func (a *Agents) askLater(ctx context.Context, socket string, request func() string, out any) error {
	unlock, err := a.busy.Lock(ctx, socket)
	if err != nil {
		return err
	}
	defer unlock()
	if conn := a.take(socket); conn != nil {
		if err := a.askOn(ctx, socket, conn, request, out); !errors.Is(err, errHungUp) {
			return err
		}
	}
	conn, err := connect(ctx, socket)
	if err != nil {
		return err
	}
	return a.askOn(ctx, socket, conn, request, out)
}

// askOn asks on a connection, which it keeps if the agent answers and closes otherwise.
func (a *Agents) askOn(ctx context.Context, socket string, conn net.Conn, request func() string, out any) error {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		_ = conn.Close()
		return fmt.Errorf("%w: %w", errHungUp, err)
	}
	cutOff := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	answer, err := converse(conn, request)
	if !cutOff() || err != nil && !errors.Is(err, errRefused) {
		_ = conn.Close()
	} else {
		a.keep(socket, conn)
		if _, err := os.Lstat(socket); err != nil { // Release came before
			a.Release(socket)
		}
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

// converse sends one request on a connection and returns the answer.
func converse(conn net.Conn, request func() string) (json.RawMessage, error) {
	r := bufio.NewReader(io.LimitReader(conn, maxAgentReplies))
	if err := syncAgent(conn, r); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("%w: %w", errHungUp, err)
		}
		return nil, fmt.Errorf("synchronizing with the guest agent: %w", err)
	}
	if _, err := io.WriteString(conn, request()+"\n"); err != nil {
		return nil, err
	}
	var reply struct {
		Return json.RawMessage
		Error  *struct{ Desc string }
	}
	if err := json.NewDecoder(r).Decode(&reply); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	if reply.Error != nil {
		return nil, fmt.Errorf("%w: %s", errRefused, reply.Error.Desc)
	}
	return reply.Return, nil
}

// syncAgent discards the answers to earlier clients. The agent answers
// guest-sync-delimited with a byte 0xff, which no JSON text contains, and a
// reply that repeats the number. The 0xff that is sent first makes the agent
// drop a request that was cut off.
func syncAgent(w io.Writer, r *bufio.Reader) error {
	id := time.Now().UnixNano() & (1<<53 - 1)
	if _, err := fmt.Fprintf(w, "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%d}}\n", id); err != nil {
		return err
	}
	for {
		if _, err := r.ReadSlice(0xff); err == bufio.ErrBufferFull {
			continue
		} else if err != nil {
			return err
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		var reply struct{ Return int64 }
		if json.Unmarshal(line, &reply) == nil && reply.Return == id {
			return nil
		}
	}
}

// SetTime sets the guest's clock, once the agent listens. The agent then starts a program that sets the hardware clock
// too, which makes it answer late. ctx must have a deadline.
func (a *Agents) SetTime(ctx context.Context, socket string) error {
	return a.askLater(ctx, socket, func() string {
		return fmt.Sprintf(`{"execute":"guest-set-time","arguments":{"time":%d}}`, time.Now().UnixNano())
	}, nil)
}
