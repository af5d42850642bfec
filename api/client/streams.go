package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
)

func (c *cli) consoleCommand() *cobra.Command {
	var follow bool
	var tail int
	cmd := &cobra.Command{
		Use: "console ID", Short: "Print what a machine wrote to its serial console", Args: cobra.ExactArgs(1), ValidArgsFunction: c.machineIDs,
		RunE: c.verb(func(ctx context.Context, args []string) error {
			query := make(url.Values)
			if follow {
				query.Set("follow", "1")
			}
			if tail != 0 {
				query.Set("tail", strconv.Itoa(tail))
			}
			return c.stream(ctx, vmPath(args[0], "/console?"+query.Encode()), c.Stdout)
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the guest writes, until the machine is gone or Ctrl-C")
	cmd.Flags().IntVar(&tail, "tail", 0, "only the last N bytes; 0 for all that is kept")
	return cmd
}

func (c *cli) screenshotCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "screenshot ID -o FILE", Short: "Save a machine's screen as a PNG file", Args: cobra.ExactArgs(1), ValidArgsFunction: c.machineIDs,
		RunE: c.verb(func(ctx context.Context, args []string) error { return c.screenshot(ctx, args[0], file) }),
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the file, - for standard output")
	_ = cmd.MarkFlagRequired("output") // the flag is there
	return cmd
}

func (c *cli) screenshot(ctx context.Context, id, file string) error {
	path := vmPath(id, "/screenshot")
	if file == "-" {
		return c.stream(ctx, path, c.Stdout)
	}
	f, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	defer f.Cleanup() // once the file has its name this does nothing
	if err := c.stream(ctx, path, f); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	c.say("%s written", file)
	return nil
}

// stream copies an answer as it comes.
func (c *cli) stream(ctx context.Context, path string, w io.Writer) error {
	n, err := c.dial()
	if err != nil {
		return err
	}
	res, err := n.open(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err = io.Copy(w, res.Body); err != nil && ctx.Err() != nil {
		return errInterrupted
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &failure{exitUnavailable, fmt.Errorf("%s broke off: %w", n.name, err)}
	}
	return err
}
