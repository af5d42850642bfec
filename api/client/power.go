package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// stopTimeout is the longest time that stop waits for a guest to shut down. Most need seconds.
const stopTimeout = 2 * time.Minute

func actions() []string { return []string{"on", "off", "shutdown", "reset", "suspend", "resume"} }

func newPowerCommand(c *cli) *cobra.Command {
	return c.withFieldFlag(&cobra.Command{
		Use: "power ID {on|off|shutdown|reset|suspend|resume}", Short: "Change a machine's power state, and print it",
		Long: "Changes a machine's power state, and prints it. shutdown asks the guest and returns at once; all others\nreturn when the machine is in its new state. The action may also precede the ID.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return fmt.Errorf("the action or the machine is missing; the actions are %s", strings.Join(actions(), ", "))
			}
			return checkArgs(args, 2, 2, machineArg)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 && !slices.Contains(actions(), args[0]) {
				return actions(), cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeMachines(cmd, args, prefix)
		},
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			id, action := args[0], args[1]
			if slices.Contains(actions(), id) && !slices.Contains(actions(), action) {
				id, action = action, id
			}
			if !slices.Contains(actions(), action) {
				return usageError("there is no action %q%s", action, choices(action, actions(), "action"))
			}
			if err := c.checkField(ctx, daemon); err != nil {
				return err
			}
			m, err := daemon.power(ctx, id, action)
			if err != nil {
				return err
			}
			return c.printMachine(m, 0)
		}),
	})
}

// power changes a machine's power state.
func (c *apiClient) power(ctx context.Context, id, action string) (machine, error) {
	body, err := json.Marshal(map[string]string{"action": action})
	if err != nil {
		return machine{}, err
	}
	document, err := c.doWithin(ctx, powerTimeout, http.MethodPost, vmPath(id, "/power"), body, nil)
	if err != nil {
		return machine{}, err
	}
	return parseMachine(document)
}

func newStartCommand(c *cli) *cobra.Command {
	return newActionCommand(c, "start", "on", "Power machines on")
}

func newSuspendCommand(c *cli) *cobra.Command {
	return newActionCommand(c, "suspend", "suspend", "Stop machines where they are, to be resumed later")
}

func newResumeCommand(c *cli) *cobra.Command {
	return newActionCommand(c, "resume", "resume", "Continue suspended machines")
}

func newResetCommand(c *cli) *cobra.Command {
	return newActionCommand(c, "reset", "reset", "Reset machines at once, without asking their guests")
}

// newActionCommand returns a verb that does one action to machines.
func newActionCommand(c *cli, name, action, short string) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID...", Short: short, Args: someArgs(machineArg), ValidArgsFunction: c.completeMachines,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			return c.eachMachine(ctx, args, func(ctx context.Context, id string) (machine, error) { return daemon.power(ctx, id, action) })
		}),
	}
}

// eachMachine does something to machines, one after the other, and prints each. It continues after an error and returns
// all errors.
func (c *cli) eachMachine(ctx context.Context, ids []string, do func(context.Context, string) (machine, error)) error {
	var errs []error
	for _, id := range ids {
		m, err := do(ctx, id)
		switch {
		case err == nil:
			errs = append(errs, c.printMachine(m, 0))
		case len(ids) > 1:
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
		default:
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func newStopCommand(c *cli) *cobra.Command {
	var now bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "stop ID...", Short: "Shut machines down, and wait until they are off", Args: someArgs(machineArg), ValidArgsFunction: c.completeMachines,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			return c.eachMachine(ctx, args, func(ctx context.Context, id string) (machine, error) {
				if now {
					return daemon.power(ctx, id, "off")
				}
				return c.shutDown(ctx, daemon, id, timeout)
			})
		}),
	}
	cmd.Flags().BoolVar(&now, "now", false, "switch the machines off at once, without asking their guests")
	addTimeoutFlag(cmd, &timeout, stopTimeout)
	return cmd
}

// shutDown asks a guest to shut down, and waits until the machine is off.
func (c *cli) shutDown(ctx context.Context, daemon *apiClient, id string, timeout time.Duration) (machine, error) {
	m, err := daemon.power(ctx, id, "shutdown")
	if err != nil {
		return m, err
	}
	m, err = waitFor(ctx, c, daemon, m, goalOff, timeout)
	var e *exitError
	if errors.As(err, &e) && e.code == exitTimeout {
		err = errors.Join(err, fmt.Errorf("the guest did not shut down; osx-builder stop --now %s switches it off", id))
	}
	return m, err
}
