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

// Run executes the verb in the arguments and returns the exit code of the process. ctx ends when the user interrupts
// the process.
func Run(ctx context.Context, o Options) int {
	c := &cli{
		settings: settings{getenv: o.Getenv},
		output:   newOutput(o.Stdout, o.Stderr, o.Getenv),
		stdin:    o.Stdin,
	}
	cmd, err := newRootCommand(c, o).ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !c.started {
		help := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name())
		c.errorf("%v (see osx-builder help%s)", err, help)
		return exitUsage
	}
	for line := range strings.Lines(err.Error()) {
		c.errorf("%s", strings.TrimSpace(line))
	}
	return exitCode(ctx, err)
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

// runWithDaemon is run for a verb that needs the daemon.
func (c *cli) runWithDaemon(do func(ctx context.Context, daemon *apiClient, args []string) error) func(*cobra.Command, []string) error {
	return c.run(func(ctx context.Context, args []string) error {
		daemon, err := c.newClient()
		if err != nil {
			return err
		}
		return do(ctx, daemon, args)
	})
}

const longHelp = `Creates and destroys virtual machines through an osx-builder daemon.

ID is a machine's id, the start of it with at least four characters, or its
name. On a terminal, results are printed for people. If stdout is a pipe or a
file, or with --json, they are the daemon's JSON. Everything else goes to stderr.
Without a verb, osx-builder starts the daemon; see osx-builder -help.

Exit codes: 0 success, 1 the machine failed, 2 invalid command line or request,
3 not found, 4 conflict, 5 daemon unavailable, 6 timeout, 7 not allowed,
8 any other error, 130 interrupted.`

// newRootCommand returns the command that contains all verbs.
func newRootCommand(c *cli, o Options) *cobra.Command {
	root := &cobra.Command{
		Use: "osx-builder VERB", Short: "Create and destroy virtual machines", Long: longHelp,
		SilenceErrors: true, SilenceUsage: true, DisableSuggestions: true,
		Args: cobra.ArbitraryArgs, RunE: unknownVerb,
	}
	root.SetArgs(longFlags(o.Args))
	root.SetIn(o.Stdin)
	root.SetOut(o.Stdout)
	root.SetErr(o.Stderr)
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", ".FlagUsagesWrapped 79 "))
	root.CompletionOptions.DisableDefaultCmd = true
	f := root.PersistentFlags()
	c.settings.addFlags(f)
	f.BoolVarP(&c.quiet, "quiet", "q", false, "print no progress on stderr, only errors; list prints only ids")
	f.BoolVar(&c.json, "json", false, "print the daemon's JSON, even on a terminal")
	root.SetHelpCommand(newHelpCommand(c))
	root.AddCommand(
		newCreateCommand(c), newListCommand(c), newGetCommand(c), newWaitCommand(c), newDeleteCommand(c), newExtendCommand(c),
		newPowerCommand(c), newStartCommand(c), newStopCommand(c), newSuspendCommand(c), newResumeCommand(c), newResetCommand(c),
		newSSHCommand(c), newConsoleCommand(c), newScreenshotCommand(c), newEventsCommand(c), newInfoCommand(c),
		newImagesCommand(c), newChecksumCommand(c), newCompletionCommand(c), newVersionCommand(c, o.Version),
	)
	wrapHelp(root)
	return root
}

func newVersionCommand(c *cli, version string) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: noArgs,
		RunE: c.run(func(context.Context, []string) error {
			_, err := fmt.Fprintln(c.stdout, version)
			return err
		}),
	}
}
