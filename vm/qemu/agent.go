package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"
)

const (
	agentSocket = "qga"

	// agentTimeout is how long the guest's agent is given. It answers within
	// milliseconds even under emulation, and a deaf one holds up every
	// Inspect for this long.
	agentTimeout = 500 * time.Millisecond

	// agentReply bounds what a guest can make the daemon read.
	agentReply = 1 << 20
)

// What can become of a request to an agent that listens.
var (
	errUnanswered = errors.New("the guest agent has not answered")
	errRefused    = errors.New("the guest agent refuses")
)

// agentInterface is one entry of guest-network-get-interfaces.
type agentInterface struct {
	MAC       string `json:"hardware-address"`
	Addresses []struct {
		IP string `json:"ip-address"`
	} `json:"ip-addresses"`
}

// agentInterfaces asks the guest's agent for its network interfaces. Callers
// that ask one process at once share an answer, because the agent too serves
// one client at a time.
func (d *Driver) agentInterfaces(ctx context.Context, dir string, pid int) ([]agentInterface, error) {
	answer, err, _ := d.agents.Do(fmt.Sprint(dir, "\x00", pid), func() (any, error) {
		// Others wait for this answer: it does not end with its first caller.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), agentTimeout)
		defer cancel()
		return askAgent(ctx, filepath.Join(dir, agentSocket))
	})
	interfaces, _ := answer.([]agentInterface)
	return interfaces, err
}

func askAgent(ctx context.Context, path string) ([]agentInterface, error) {
	var interfaces []agentInterface
	err := talkToAgent(ctx, path, `{"execute":"guest-network-get-interfaces"}`, &interfaces)
	if errors.Is(err, errRefused) {
		return nil, nil // it runs, and knows of none
	}
	return interfaces, err
}

// talkToAgent sends the agent one request and reads its answer into out, which
// may be nil. ctx has a deadline.
func talkToAgent(ctx context.Context, path, request string, out any) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	r := bufio.NewReader(io.LimitReader(conn, agentReply))
	if err := syncAgent(conn, r); err != nil {
		return fmt.Errorf("greeting the guest agent: %w", err)
	}
	if _, err := io.WriteString(conn, request+"\n"); err != nil {
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

// syncAgent throws away what the agent still had to say to an earlier client:
// it answers guest-sync-delimited with a byte 0xff, which is in no JSON text,
// before the reply that repeats the number. The 0xff sent first makes the
// agent forget a request that was cut off.
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
