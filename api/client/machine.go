package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/spf13/cobra"
)

func newGetCommand(c *cli) *cobra.Command {
	return c.withFieldFlag(&cobra.Command{
		Use: "get ID", Short: "Print a machine's document", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeMachines,
		RunE: c.run(func(ctx context.Context, args []string) error {
			daemon, err := c.newClient()
			if err != nil {
				return err
			}
			document, err := daemon.get(ctx, vmPath(args[0], ""))
			return errors.Join(err, c.printDocument(document))
		}),
	})
}

func newPowerCommand(c *cli) *cobra.Command {
	actions := []string{"on", "off", "shutdown", "reset", "suspend", "resume"}
	return c.withFieldFlag(&cobra.Command{
		Use: "power ID {on|off|shutdown|reset|suspend|resume}", Short: "Change a machine's power state, and print its document", Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return actions, cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeMachines(cmd, args, prefix)
		},
		RunE: c.run(func(ctx context.Context, args []string) error {
			daemon, err := c.newClient()
			if err != nil {
				return err
			}
			body, err := json.Marshal(map[string]string{"action": args[1]})
			if err != nil {
				return err
			}
			document, err := daemon.do(ctx, http.MethodPost, vmPath(args[0], "/power"), body, nil)
			return errors.Join(err, c.printDocument(document))
		}),
	})
}
