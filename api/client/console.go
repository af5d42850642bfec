package client

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
)

func newConsoleCommand(c *cli) *cobra.Command {
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use: "console ID", Short: "Print the output of a machine's serial console", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeMachines,
		RunE: c.run(func(ctx context.Context, args []string) error {
			query := make(url.Values)
			if follow {
				query.Set("follow", "1")
			}
			if tail != 0 {
				query.Set("tail", strconv.Itoa(tail))
			}
			daemon, err := c.newClient()
			if err != nil {
				return err
			}
			return daemon.stream(ctx, vmPath(args[0], "/console?"+query.Encode()), c.stdout)
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new output until the machine is destroyed or Ctrl-C is pressed")
	cmd.Flags().IntVar(&tail, "tail", 0, "print only the last N bytes; 0 prints everything that the daemon has kept")
	return cmd
}

func newScreenshotCommand(c *cli) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "screenshot ID -o FILE", Short: "Save a screenshot of a machine as a PNG file", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeMachines,
		RunE: c.run(func(ctx context.Context, args []string) error { return saveScreenshot(ctx, c, args[0], file) }),
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the file; - for stdout")
	_ = cmd.MarkFlagRequired("output") // the flag exists
	return cmd
}

func saveScreenshot(ctx context.Context, c *cli, id, file string) error {
	daemon, err := c.newClient()
	if err != nil {
		return err
	}
	path := vmPath(id, "/screenshot")
	if file == "-" {
		return daemon.stream(ctx, path, c.stdout)
	}
	f, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	defer f.Cleanup() // does nothing after the file was renamed
	if err := daemon.stream(ctx, path, f); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	c.infof("%s written", file)
	return nil
}
