package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

func newDeleteCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete ID...", Aliases: []string{"rm"}, Short: "Destroy machines, and return when nothing of them is left",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: c.completeMachines,
		RunE: c.run(func(ctx context.Context, args []string) error {
			return forEach(ctx, c, args, force, "destroyed", (*apiClient).destroyVM)
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "ignore machines that do not exist")
	return cmd
}

// forEach calls do for each name and prints done after each success. It continues after an error and returns all
// errors. With force, it ignores names that do not exist.
func forEach(ctx context.Context, c *cli, names []string, force bool, done string, do func(*apiClient, context.Context, string) error) error {
	daemon, err := c.newClient()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		err := do(daemon, ctx, name)
		switch e := new(apiError); {
		case err == nil:
			c.infof("%s %s", name, done)
		case force && errors.As(err, &e) && e.status == http.StatusNotFound:
		default:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}
