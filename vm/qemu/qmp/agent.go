package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/singleflight"
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
)

// Interface is one network interface of a guest.
type Interface struct {
	MAC       string `json:"hardware-address"`
	Addresses []struct {
		IP string `json:"ip-address"`
	} `json:"ip-addresses"`
}

// Agents asks the agents of any number of guests. The zero value is ready for
// use.
type Agents struct {
	shared singleflight.Group // by socket and process
}

// Interfaces returns the guest's network interfaces. socket belongs to the
// agent of a guest in the process pid. Concurrent callers share an answer,
// because an agent serves one client at a time.
func (a *Agents) Interfaces(ctx context.Context, socket string, pid int) ([]Interface, error) {
	answer, err, _ := a.shared.Do(fmt.Sprint(socket, "\x00", pid), func() (any, error) {
		// Other callers wait for this answer, so it does not end with the first
		// caller's context.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AgentTimeout)
		defer cancel()
		return askInterfaces(ctx, socket)
	})
	interfaces, _ := answer.([]Interface)
	return interfaces, err
}

func askInterfaces(ctx context.Context, socket string) ([]Interface, error) {
	var interfaces []Interface
	err := askAgent(ctx, socket, `{"execute":"guest-network-get-interfaces"}`, &interfaces)
	if errors.Is(err, errRefused) {
		return nil, nil // the agent runs and cannot list any
	}
	return interfaces, err
}

// ShutDown asks the agent to shut the guest down. An agent that obeys does not
// answer this request.
func ShutDown(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, AgentTimeout)
	defer cancel()
	err := askAgent(ctx, socket, `{"execute":"guest-shutdown"}`, nil)
	if errors.Is(err, errUnanswered) {
		return nil
	}
	return err
}

// askAgent sends the agent one request and decodes its answer into out, which
// may be nil. ctx must have a deadline.
func askAgent(ctx context.Context, socket, request string, out any) error {
	return askAgentLater(ctx, socket, func() string { return request }, out)
}

// askAgentLater is askAgent for a request that is made once the agent listens.
func askAgentLater(ctx context.Context, socket string, request func() string, out any) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	r := bufio.NewReader(io.LimitReader(conn, maxAgentReplies))
	if err := syncAgent(conn, r); err != nil {
		return fmt.Errorf("synchronizing with the guest agent: %w", err)
	}
	if _, err := io.WriteString(conn, request()+"\n"); err != nil {
		return err
	}
	var reply struct {
		Return json.RawMessage
		Error  *struct{ Desc string }
	}
	if err := json.NewDecoder(r).Decode(&reply); err != nil {
		return fmt.Errorf("%w: %w", errUnanswered, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("%w: %s", errRefused, reply.Error.Desc)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(reply.Return, out)
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
func SetTime(ctx context.Context, socket string) error {
	return askAgentLater(ctx, socket, func() string {
		return fmt.Sprintf(`{"execute":"guest-set-time","arguments":{"time":%d}}`, time.Now().UnixNano())
	}, nil)
}
