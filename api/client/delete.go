package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// deletesAtOnce is how many machines are destroyed side by side.
const deletesAtOnce = 8

// deleteOptions are the flags of delete.
type deleteOptions struct {
	listOptions
	force, yes, all bool
}

func newDeleteCommand(c *cli) *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use: "delete {ID... | --all | --phase PHASE | --label LABEL}", Aliases: []string{"rm", "destroy"}, Short: "Destroy machines, and return when nothing of them is left",
		Long:    "Destroys machines, and returns when nothing of them is left. On a terminal it asks before it destroys machines\nthat run.",
		Example: "  osx-builder delete web\n  osx-builder delete --phase failed",
		Args: func(_ *cobra.Command, args []string) error {
			selects := o.all || o.filters()
			switch {
			case len(args) == 0 && !selects:
				return errors.New(machineArg + " is missing; --all destroys all machines")
			case len(args) > 0 && selects:
				return fmt.Errorf("%q cannot be together with --all, --phase, --status, --owner or --label", args[0])
			}
			return nil
		},
		ValidArgsFunction: c.completeMachines,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			return o.run(ctx, c, daemon, args)
		}),
	}
	o.addFilterFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "destroy all machines")
	f.BoolVar(&o.force, "force", false, "ignore machines that do not exist")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (o *deleteOptions) run(ctx context.Context, c *cli, daemon *apiClient, args []string) error {
	ids := args
	if len(args) == 0 {
		_, list, err := o.read(ctx, daemon)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			c.infof("%s", o.none())
			return nil
		}
		for _, m := range list {
			ids = append(ids, m.ID)
		}
		if err := o.confirm(c, list); err != nil {
			return err
		}
	} else if err := o.confirmIDs(ctx, c, daemon, args); err != nil {
		return err
	}
	return forEach(ctx, c, ids, o.force, "destroyed", daemon.destroyVM)
}

// confirmIDs reads the machines if the user is to be asked. Those that cannot be read do not matter here.
func (o *deleteOptions) confirmIDs(ctx context.Context, c *cli, daemon *apiClient, ids []string) error {
	if o.yes || !c.canAsk() {
		return nil
	}
	var list []machine
	for _, id := range ids {
		if m, err := daemon.machine(ctx, id); err == nil {
			list = append(list, m)
		}
	}
	return o.confirm(c, list)
}

// confirm asks the user before machines that run are destroyed.
func (o *deleteOptions) confirm(c *cli, list []machine) error {
	running := 0
	for _, m := range list {
		if m.running() {
			running++
		}
	}
	question := ""
	switch {
	case o.yes || running == 0 || !c.canAsk():
		return nil
	case len(list) == 1:
		question = fmt.Sprintf("Destroy %s, which is running?", c.label(list[0]))
	case running == len(list):
		question = fmt.Sprintf("Destroy %s, which are running?", plural(running, "machine"))
	case running == 1:
		question = fmt.Sprintf("Destroy %s, one of which is running?", plural(len(list), "machine"))
	default:
		question = fmt.Sprintf("Destroy %s, %d of which are running?", plural(len(list), "machine"), running)
	}
	fmt.Fprint(c.stderr, question+" [y/N] ")
	answer, err := bufio.NewReader(c.stdin).ReadString('\n')
	if err != nil {
		fmt.Fprintln(c.stderr) // the answer did not end the line
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &exitError{exitInterrupted, errors.New("nothing was destroyed")}
}

// canAsk reports whether somebody can answer a question.
func (c *cli) canAsk() bool { return isTerminal(c.stdin) && isTerminal(c.stderr) }

// forEach calls do for each name, some side by side, and prints done after each success. It continues after an error
// and returns all errors. With force, it ignores names that do not exist.
func forEach(ctx context.Context, c *cli, names []string, force bool, done string, do func(context.Context, string) error) error {
	var mu sync.Mutex // guards the output and errs
	errs := make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(deletesAtOnce)
	for i, name := range names {
		group.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			err := do(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			switch e := new(apiError); {
			case err == nil:
				c.infof("%s %s", name, done)
			case force && errors.As(err, &e) && e.status == http.StatusNotFound:
			case len(names) == 1:
				errs[i] = err
			default:
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	return errors.Join(errs...)
}
