package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
)

func goals() []string {
	return []string{string(goalReady), string(goalAddress), string(goalGone), "powered-on", "powered-off", "suspended"}
}

// reached reports whether the machine is in the state. It returns an error if the machine can no longer reach it.
func (g goal) reached(m machine) (bool, error) {
	switch {
	case g == goalGone:
		return false, nil // the daemon returns not found instead
	case m.Phase == "failed":
		return false, m.failure()
	case m.Phase == "destroying":
		return false, &exitError{exitNotFound, fmt.Errorf("machine %s is being destroyed", m.ID)}
	case g == goalReady:
		return m.Phase == "ready", nil
	case g == goalAddress:
		return m.Phase == "ready" && m.IP != "", nil
	default:
		return m.Status == string(g), nil
	}
}

func newWaitCommand(c *cli) *cobra.Command {
	var state string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait for a machine, and print its document", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeMachines,
		RunE: c.run(func(ctx context.Context, args []string) error {
			if !slices.Contains(goals(), state) {
				return usageError("--for %q: it must be one of %v", state, goals())
			}
			daemon, err := c.newClient()
			if err != nil {
				return err
			}
			m, err := waitFor(ctx, c, daemon, machine{ID: args[0]}, goal(state), timeout)
			return errors.Join(err, c.printDocument(m.document))
		}),
	}
	f := cmd.Flags()
	f.StringVar(&state, "for", string(goalReady), "ready, address (the address is known), gone, powered-on, powered-off or suspended")
	addTimeoutFlag(cmd, &timeout)
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(goals(), cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c.withFieldFlag(cmd)
}

func addTimeoutFlag(cmd *cobra.Command, timeout *time.Duration) {
	cmd.Flags().DurationVar(timeout, "timeout", defaultTimeout, "the longest time to wait; 0 for no limit")
}

// waitFor waits until the machine is in the state, and shows its progress. It returns the machine as it was last read,
// even together with an error.
func waitFor(ctx context.Context, c *cli, daemon *apiClient, m machine, g goal, timeout time.Duration) (machine, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	w := &waiter{daemon: daemon, goal: g, machine: m, progress: c.newProgress(), answeredAt: time.Now()}
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
			return w.machine, contextError(ctx)
		}
	}
}

// waiter waits for a machine to reach a state.
type waiter struct {
	daemon     *apiClient
	goal       goal
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
	return w.goal.reached(m)
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
		return false, contextError(ctx)
	case !answeredBefore || !temporary || time.Since(w.answeredAt) > maxOutage:
		return false, err
	}
	w.progress.notice(fmt.Sprintf("%v; retrying for %v", err, maxOutage))
	return false, nil
}

// contextError returns an error that distinguishes --timeout from an interruption by the user.
func contextError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &exitError{exitTimeout, errors.New("--timeout reached")}
	}
	return errInterrupted
}
