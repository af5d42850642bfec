package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// defaultTimeout is longer than any machine should take. It ends jobs that nobody watches.
	defaultTimeout = 30 * time.Minute

	// pollInterval is how often a machine is read during a wait. While the command waits for a machine to become ready,
	// the daemon delays each answer by up to this time, so the command notices the end at once.
	pollInterval = time.Second

	// maxOutage is how long the daemon may be unavailable during a wait. Machines keep running while the daemon is
	// updated, so the wait should continue too.
	maxOutage = time.Minute
)

// goal is the state that a command waits for: one of the constants below or a power state.
type goal string

const (
	goalReady   goal = "ready"
	goalAddress goal = "address"
	goalGone    goal = "gone"
	goalOff     goal = "powered-off"
)

func goals() []string {
	return []string{string(goalReady), string(goalAddress), string(goalGone), "powered-on", string(goalOff), "suspended"}
}

// text completes the sentence "the machine …".
func (g goal) text() string {
	switch g {
	case goalAddress:
		return "did not have an address"
	case goalGone:
		return "was not gone"
	default:
		return "was not " + string(g)
	}
}

// reached reports whether the machine is in the state. It returns an error if the machine can no longer reach it.
func (w *waiter) reached(m machine) (bool, error) {
	switch {
	case w.goal == goalGone:
		return false, nil // the daemon returns not found instead
	case m.Phase == "failed":
		return false, w.out.failure(m)
	case m.Phase == "destroying":
		return false, &exitError{exitNotFound, fmt.Errorf("machine %s is being destroyed", w.out.label(m))}
	case w.goal == goalReady:
		return m.Phase == "ready", nil
	case w.goal == goalAddress:
		return m.Phase == "ready" && m.IP != "", nil
	default:
		return m.Status == string(w.goal), nil
	}
}

func newWaitCommand(c *cli) *cobra.Command {
	var state string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait for a machine, and print it", Args: oneArg(machineArg), ValidArgsFunction: c.completeMachine,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			if !slices.Contains(goals(), state) {
				return usageError("--for %q: it must be one of %s", state, strings.Join(goals(), ", "))
			}
			if err := c.checkField(ctx, daemon); err != nil {
				return err
			}
			started := time.Now()
			m, err := waitFor(ctx, c, daemon, machine{ID: args[0]}, goal(state), timeout)
			if err != nil && c.forPeople() {
				return err // it says everything
			}
			return errors.Join(c.printMachine(m, time.Since(started)), err)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&state, "for", string(goalReady), "ready, address (the address is known), gone, powered-on, powered-off or suspended")
	addTimeoutFlag(cmd, &timeout, defaultTimeout)
	completeFlag(cmd, "for", goals()...)
	return c.withFieldFlag(cmd)
}

func addTimeoutFlag(cmd *cobra.Command, timeout *time.Duration, most time.Duration) {
	*timeout = most
	cmd.Flags().Var((*durationValue)(timeout), "timeout", "the longest time to wait; 0 for no limit")
}

// waitFor waits until the machine is in the state, and shows its progress. It returns the machine as it was last read,
// even together with an error.
func waitFor(ctx context.Context, c *cli, daemon *apiClient, m machine, g goal, timeout time.Duration) (machine, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	w := &waiter{out: &c.output, daemon: daemon, goal: g, timeout: timeout, machine: m, progress: c.newProgress(), answeredAt: time.Now()}
	defer w.progress.end()
	for {
		polledAt := time.Now()
		done, err := w.poll(ctx)
		if done || err != nil {
			return w.machine, err
		}
		if g == goalReady && !w.longPoll {
			w.longPoll = true
			continue
		}
		select {
		case <-time.After(pollInterval - time.Since(polledAt)):
		case <-ctx.Done():
			return w.machine, w.contextError(ctx)
		}
	}
}

// waiter waits for a machine to reach a state.
type waiter struct {
	out        *output
	daemon     *apiClient
	goal       goal
	timeout    time.Duration
	machine    machine // as it was last read
	progress   *progress
	answeredAt time.Time // of the last answer
	longPoll   bool      // let the daemon delay its answer until the machine is ready
}

// poll reads the machine once and reports whether it reached the state.
func (w *waiter) poll(ctx context.Context) (done bool, err error) {
	query := ""
	if w.longPoll {
		query = "?wait=" + pollInterval.String()
	}
	document, err := w.daemon.get(ctx, vmPath(w.machine.ID, query))
	if err != nil {
		return w.handleError(ctx, err)
	}
	m, err := parseMachine(document)
	if err != nil {
		return false, err
	}
	w.machine, w.answeredAt = m, time.Now()
	w.progress.update(m)
	return w.reached(m)
}

// handleError decides what an error means. It can mean that the machine is gone, which may be the goal. If the daemon
// has answered before and is unavailable now, or cannot read the machine, poll is repeated for some time. Every other
// error ends the wait.
func (w *waiter) handleError(ctx context.Context, err error) (done bool, _ error) {
	code := exitCode(context.WithoutCancel(ctx), err)
	answeredBefore := w.machine.document != nil
	temporary := code == exitUnavailable || code == exitConflict
	switch {
	case code == exitNotFound && w.goal == goalGone:
		w.machine = machine{}
		return true, nil
	case ctx.Err() != nil:
		return false, w.contextError(ctx)
	case !answeredBefore || !temporary || time.Since(w.answeredAt) > maxOutage:
		return false, err
	}
	w.progress.notice(fmt.Sprintf("%v; retrying for %s", err, durationText(maxOutage)))
	return false, nil
}

// contextError returns an error that distinguishes --timeout, with how far the machine got, from an interruption by
// the user.
func (w *waiter) contextError(ctx context.Context) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errInterrupted
	}
	if w.machine.document == nil {
		return &exitError{exitTimeout, fmt.Errorf("after %s the daemon had not answered about machine %s", durationText(w.timeout), w.machine.ID)}
	}
	state := w.machine.state()
	if file := w.machine.file(); file != "" && w.machine.Progress != nil {
		state = strings.TrimSpace(w.machine.Phase + " " + file + " " + w.machine.percent())
	}
	return &exitError{exitTimeout, fmt.Errorf("after %s machine %s %s; it is %s (--timeout)", durationText(w.timeout), w.out.label(w.machine), w.goal.text(), state)}
}
