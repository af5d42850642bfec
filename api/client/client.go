package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Options is what the command line needs of the process.
type Options struct {
	Args           []string // without the program's name
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string // what the verb version prints
}

// Asked reports whether a program's arguments ask for the command line: the
// first of them is a verb. The daemon's are flags only.
func Asked(args []string) bool { return len(args) > 0 && !strings.HasPrefix(args[0], "-") }

// Run does what the arguments ask for and returns the process's exit code. ctx
// ends when the user interrupts it.
func Run(ctx context.Context, o Options) int {
	c := &cli{Options: o}
	cmd, err := c.root().ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case !c.began:
		fmt.Fprintf(o.Stderr, "osx-builder: %v (osx-builder help%s explains)\n", err, strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()))
		return exitUsage
	default:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(o.Stderr, "osx-builder:", strings.TrimSpace(line))
		}
		return exitCode(ctx, err)
	}
}

// cli is one run of the command line.
type cli struct {
	Options
	host, tokenFile, caCert string
	field                   string // of the documents that are printed, "" for all
	quiet                   bool
	began                   bool // the arguments hold: what fails now is not for want of a right command line
}

const about = `Makes and destroys virtual machines through an osx-builder daemon.

Documents go to standard output as JSON, all else to standard error. Without a
verb osx-builder is the daemon itself; osx-builder -help explains that.

Exit codes: 0 done, 1 the machine failed, 2 wrong command line or request,
3 not found, 4 conflict, 5 daemon unavailable, 6 timeout, 7 not allowed,
8 anything else, 130 interrupted.`

// root is the tree of verbs.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use: "osx-builder VERB", Short: "Make and destroy virtual machines", Long: about,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetArgs(c.Args)
	root.SetIn(c.Stdin)
	root.SetOut(c.Stdout)
	root.SetErr(c.Stderr)
	f := root.PersistentFlags()
	f.StringVar(&c.host, "host", "", "the daemon: http://HOST:PORT, https://HOST:PORT or unix:/PATH (variable OSX_BUILDER_HOST; default "+standardHost+")")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the token that the daemon asks for (variable OSX_BUILDER_TOKEN_FILE)")
	f.StringVar(&c.caCert, "ca-cert", "", "PEM file with the certificate that signed the daemon's (variable OSX_BUILDER_CA_CERT)")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no progress on standard error, only errors")
	root.AddCommand(
		c.fieldFlag(c.createCommand()), c.listCommand(), c.fieldFlag(c.getCommand()), c.fieldFlag(c.waitCommand()), c.deleteCommand(),
		c.fieldFlag(c.powerCommand()), c.consoleCommand(), c.screenshotCommand(),
		c.imagesCommand(), c.checksumCommand(), c.versionCommand(),
	)
	return root
}

// verb wraps what a command does: from here on its arguments hold.
func (c *cli) verb(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.began = true
		return do(cmd.Context(), args)
	}
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		RunE: c.verb(func(context.Context, []string) error {
			_, err := fmt.Fprintln(c.Stdout, c.Version)
			return err
		}),
	}
}

// print writes a document to standard output, or the field of it that was
// asked for.
func (c *cli) print(document []byte) error {
	if c.field == "" || len(document) == 0 {
		_, err := c.Stdout.Write(document)
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(document, &fields); err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	value, ok := fields[c.field]
	if !ok {
		return usage("--field %s: there is no such field in the document", c.field)
	}
	text := string(value)
	if s := ""; json.Unmarshal(value, &s) == nil {
		text = s
	}
	_, err := fmt.Fprintln(c.Stdout, text)
	return err
}

// fieldFlag lets a verb that prints a document print one field of it.
func (c *cli) fieldFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.field, "field", "", "print only this field of the document, as in id or ip_address, without quotes")
	return cmd
}

// say writes a line for people.
func (c *cli) say(format string, args ...any) {
	if !c.quiet {
		fmt.Fprintf(c.Stderr, "osx-builder: "+format+"\n", args...)
	}
}

// isTerminal reports whether a person reads w as it is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// usage is an error in the command line that shows only once it is acted on.
func usage(format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...)}
}
