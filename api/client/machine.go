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
		Use: "get ID", Aliases: []string{"inspect"}, Short: "Print a machine", Args: oneArg(machineArg), ValidArgsFunction: c.completeMachine,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			if err := c.checkField(ctx, daemon); err != nil {
				return err
			}
			m, err := daemon.machine(ctx, args[0])
			if err != nil {
				return err
			}
			return c.printDetails(m)
		}),
	})
}

// machine reads a machine.
func (c *apiClient) machine(ctx context.Context, id string) (machine, error) {
	document, err := c.get(ctx, vmPath(id, ""))
	if err != nil {
		return machine{}, err
	}
	return parseMachine(document)
}

func newExtendCommand(c *cli) *cobra.Command {
	return c.withFieldFlag(&cobra.Command{
		Use: "extend ID {DURATION|never}", Short: "Set how long a machine still lives, from now",
		Example: "  osx-builder extend web 2h\n  osx-builder extend web never",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return errors.New(`the duration is missing, such as 2h, or never`)
			}
			return checkArgs(args, 2, 2, machineArg)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"1h", "2h", "8h", "24h", "never"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
			}
			return c.completeMachine(cmd, args, prefix)
		},
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			return extend(ctx, c, daemon, args[0], args[1])
		}),
	})
}

func extend(ctx context.Context, c *cli, daemon *apiClient, id, duration string) error {
	if err := c.checkField(ctx, daemon); err != nil {
		return err
	}
	value := durationJSON(duration)
	if duration == "never" {
		value = json.RawMessage("null")
	}
	body, err := json.Marshal(map[string]json.RawMessage{"expires_in": value})
	if err != nil {
		return err
	}
	document, err := daemon.do(ctx, http.MethodPatch, vmPath(id, ""), body, nil)
	if err != nil {
		return err
	}
	m, err := parseMachine(document)
	if err != nil || !c.forPeople() {
		return errors.Join(err, c.printDocument(document))
	}
	text := "never expires"
	if m.ExpiresAt != nil {
		text = "expires " + expiryText(*m.ExpiresAt)
	}
	return c.printFacts([][2]string{{c.label(m), text}})
}
