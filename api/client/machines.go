package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

func (c *cli) listCommand() *cobra.Command {
	var phase, status string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the machines", Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			query := make(url.Values)
			for name, value := range map[string]string{"phase": phase, "status": status} {
				if value != "" {
					query.Set(name, value)
				}
			}
			return c.list(ctx, "/vms?"+query.Encode(), asJSON, c.printMachines)
		}),
	}
	cmd.Flags().StringVar(&phase, "phase", "", "only those in this phase, as in ready")
	cmd.Flags().StringVar(&status, "status", "", "only those in this power state, as in powered-on")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the daemon's JSON in place of a table")
	return cmd
}

// list fetches a list and prints it as the daemon sent it, or as a table.
func (c *cli) list(ctx context.Context, path string, asJSON bool, table func(document []byte) error) error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	document, err := n.get(ctx, path)
	if err != nil || asJSON {
		return errors.Join(err, c.print(document))
	}
	return table(document)
}

func (c *cli) printMachines(document []byte) error {
	var list struct{ VMs []machine }
	if err := json.Unmarshal(document, &list); err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	return c.table("ID\tPHASE\tSTATUS\tADDRESS\tCPUS\tMEMORY\tIMAGE\tCREATED", func(w io.Writer) {
		for _, m := range list.VMs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", m.ID, m.phaseText(), m.Status, m.IP, m.CPUs, m.Memory, path.Base(m.Image.URL), age(m.CreatedAt))
		}
	})
}

// phaseText is the phase, and how far it is or why it is the last.
func (m machine) phaseText() string {
	switch {
	case m.Error != nil:
		return m.Phase + " (" + m.Error.Code + ")"
	case m.Progress != nil && m.Progress.Total != nil && *m.Progress.Total > 0:
		return fmt.Sprintf("%s %d %%", m.Phase, 100*m.Progress.Bytes / *m.Progress.Total)
	default:
		return m.Phase
	}
}

func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return humanize.Time(t)
}

// table prints rows under a header, in columns.
func (c *cli) table(header string, rows func(io.Writer)) error {
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(w)
	return w.Flush()
}

func (c *cli) getCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Print a machine's document", Args: cobra.ExactArgs(1), ValidArgsFunction: c.machineIDs,
		RunE: c.verb(func(ctx context.Context, args []string) error {
			n, err := c.dial()
			if err != nil {
				return err
			}
			document, err := n.get(ctx, vmPath(args[0], ""))
			return errors.Join(err, c.print(document))
		}),
	}
}

func (c *cli) waitCommand() *cobra.Command {
	var until string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait for a machine, and print its document", Args: cobra.ExactArgs(1), ValidArgsFunction: c.machineIDs,
		RunE: c.verb(func(ctx context.Context, args []string) error { return c.wait(ctx, args[0], until, timeout) }),
	}
	f := cmd.Flags()
	f.StringVar(&until, "for", string(untilReady), "ready, address (it is known), gone, powered-on, powered-off or suspended")
	f.DurationVar(&timeout, "timeout", standardTimeout, "how long to wait at most; 0 for no bound")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(goals(), cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return cmd
}

func (c *cli) wait(ctx context.Context, id, until string, timeout time.Duration) error {
	known := false
	for _, g := range goals() {
		known = known || g == until
	}
	if !known {
		return usage("--for %q: it must be one of %v", until, goals())
	}
	n, err := c.dial()
	if err != nil {
		return err
	}
	ctx, stop := within(ctx, timeout)
	defer stop()
	m, err := c.follow(ctx, n, machine{ID: id}, goal(until))
	return errors.Join(err, c.print(m.document))
}

func (c *cli) deleteCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "delete ID...", Aliases: []string{"rm"}, Short: "Destroy machines, and return when nothing of them is left",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: c.machineIDs,
		RunE: c.verb(func(ctx context.Context, args []string) error {
			return c.each(ctx, args, force, "destroyed", (*conn).destroy)
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "count those that are not there as destroyed")
	return cmd
}

// each does the same with each of several things, goes on after one that
// fails, and returns the errors. With force, what is not there is no error.
func (c *cli) each(ctx context.Context, names []string, force bool, done string, do func(*conn, context.Context, string) error) error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		err := do(n, ctx, name)
		switch r := new(refusal); {
		case err == nil:
			c.say("%s %s", name, done)
		case force && errors.As(err, &r) && r.status == http.StatusNotFound:
		default:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func (c *cli) powerCommand() *cobra.Command {
	actions := []string{"on", "off", "shutdown", "reset", "suspend", "resume"}
	return &cobra.Command{
		Use: "power ID {on|off|shutdown|reset|suspend|resume}", Short: "Change a machine's power state, and print its document", Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return actions, cobra.ShellCompDirectiveNoFileComp
			}
			return c.machineIDs(cmd, args, word)
		},
		RunE: c.verb(func(ctx context.Context, args []string) error {
			n, err := c.dial()
			if err != nil {
				return err
			}
			body, err := json.Marshal(map[string]string{"action": args[1]})
			if err != nil {
				return err
			}
			document, err := n.do(ctx, http.MethodPost, vmPath(args[0], "/power"), body, nil)
			return errors.Join(err, c.print(document))
		}),
	}
}
