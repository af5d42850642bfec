package client

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Options describes the process that runs the command line.
type Options struct {
	Args           []string // without the program's name
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string // printed by the verb version
}

// HasVerb reports whether a program's arguments begin with a verb. The daemon's arguments are only flags.
func HasVerb(args []string) bool { return len(args) > 0 && !strings.HasPrefix(args[0], "-") }

// Run executes the verb in the arguments and returns the exit code of the process. ctx ends when the user interrupts
// the process.
func Run(ctx context.Context, o Options) int {
	c := &cli{
		settings: settings{getenv: o.Getenv},
		output:   output{stdout: o.Stdout, stderr: o.Stderr},
		stdin:    o.Stdin,
	}
	cmd, err := newRootCommand(c, o).ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case !c.started:
		fmt.Fprintf(o.Stderr, "osx-builder: %v (see osx-builder help%s)\n", err, strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()))
		return exitUsage
	default:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(o.Stderr, "osx-builder:", strings.TrimSpace(line))
		}
		return exitCode(ctx, err)
	}
}

// cli is one run of the command line. Its parts are shared by all verbs.
type cli struct {
	settings
	output
	stdin   io.Reader
	started bool // the arguments are valid and the verb has started
}

// run returns a cobra.Command.RunE that calls do.
func (c *cli) run(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.started = true
		return do(cmd.Context(), args)
	}
}

const longHelp = `Creates and destroys virtual machines through an osx-builder daemon.

Documents are written to stdout as JSON, everything else to stderr. Without a
verb, osx-builder starts the daemon; see osx-builder -help.

Exit codes: 0 success, 1 the machine failed, 2 invalid command line or request,
3 not found, 4 conflict, 5 daemon unavailable, 6 timeout, 7 not allowed,
8 any other error, 130 interrupted.`

// newRootCommand returns the command that contains all verbs.
func newRootCommand(c *cli, o Options) *cobra.Command {
	root := &cobra.Command{
		Use: "osx-builder VERB", Short: "Create and destroy virtual machines", Long: longHelp,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetArgs(o.Args)
	root.SetIn(o.Stdin)
	root.SetOut(o.Stdout)
	root.SetErr(o.Stderr)
	f := root.PersistentFlags()
	c.settings.addFlags(f)
	f.BoolVarP(&c.quiet, "quiet", "q", false, "print no progress on stderr, only errors")
	root.AddCommand(
		newCreateCommand(c), newListCommand(c), newGetCommand(c), newWaitCommand(c), newDeleteCommand(c), newPowerCommand(c),
		newConsoleCommand(c), newScreenshotCommand(c), newImagesCommand(c), newChecksumCommand(c), newVersionCommand(c, o.Version),
	)
	return root
}

func newVersionCommand(c *cli, version string) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		RunE: c.run(func(context.Context, []string) error {
			_, err := fmt.Fprintln(c.stdout, version)
			return err
		}),
	}
}
