package client

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// pollTime is how often a machine is read while it is waited for. The
	// daemon holds the answer that long where it can tell of the end earlier.
	pollTime = time.Second

	// outageTime is how long the daemon may be away meanwhile: machines outlive
	// it, and whoever waits for one need not notice that it was updated.
	outageTime = time.Minute
)

// goal is what a machine is waited for.
type goal string

// The goals beside the power states.
const (
	untilReady   goal = "ready"
	untilAddress goal = "address"
	untilGone    goal = "gone"
)

func goals() []string {
	return []string{string(untilReady), string(untilAddress), string(untilGone), "powered-on", "powered-off", "suspended"}
}

// reached reports whether the machine is there, or, by its error, that it
// never will be.
func (g goal) reached(m machine) (bool, error) {
	switch {
	case g == untilGone:
		return false, nil // told by the daemon, which knows the machine no more
	case m.Phase == "failed":
		return false, m.failed()
	case m.Phase == "destroying":
		return false, &failure{exitNotFound, fmt.Errorf("machine %s is being destroyed", m.ID)}
	case g == untilReady:
		return m.Phase == "ready", nil
	case g == untilAddress:
		return m.Phase == "ready" && m.IP != "", nil
	default:
		return m.Status == string(g), nil
	}
}

// follow reads a machine until the goal is reached, and tells how it goes. The
// machine that it returns is the last that was read, also beside an error.
func (c *cli) follow(ctx context.Context, n *conn, m machine, g goal) (machine, error) {
	p := c.newProgress()
	defer p.end()
	query := "" // of the first time, when the answer is wanted at once
	for answered := time.Now(); ; {
		asked := time.Now()
		document, err := n.get(ctx, vmPath(m.ID, query))
		if err == nil {
			if m, err = parseMachine(document); err != nil {
				return m, err
			}
			answered = time.Now()
			p.show(m)
			if done, err := g.reached(m); done || err != nil {
				return m, err
			}
		} else if m, err = c.away(ctx, m, g, err, answered, p); err != nil || g == untilGone && m.ID == "" {
			return m, err
		}
		if g == untilReady && query == "" {
			query = "?wait=" + pollTime.String()
			continue
		}
		if err := pause(ctx, pollTime-time.Since(asked)); err != nil {
			return m, err
		}
	}
}

// away decides what an error means while a machine is waited for: that it is
// gone, which can be what was waited for, that the daemon is away for a while or
// cannot read the machine just now, or the end. A daemon that never answered is
// not waited for.
func (c *cli) away(ctx context.Context, m machine, g goal, err error, answered time.Time, p *progress) (machine, error) {
	code := exitCode(context.WithoutCancel(ctx), err)
	switch {
	case code == exitNotFound && g == untilGone:
		return machine{}, nil
	case ctx.Err() != nil:
		return m, late(ctx)
	case m.document == nil || code != exitUnavailable && code != exitConflict || time.Since(answered) > outageTime:
		return m, err
	}
	p.note(fmt.Sprintf("%v; trying again for %v", err, outageTime))
	return m, nil
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return late(ctx)
	}
}

// late tells the end of the user's patience from that of the time given.
func late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &failure{exitTimeout, errors.New("not within --timeout")}
	}
	return errInterrupted
}

// within bounds ctx by --timeout, of which 0 is none.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
