package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"
)

// consoleKept is how much of a console a reader can begin with, in bytes.
const consoleKept = 1 << 20

func newConsoleCommand(c *cli) *cobra.Command {
	var follow bool
	lines := -1
	cmd := &cobra.Command{
		Use: "console ID", Aliases: []string{"logs"}, Short: "Print the output of a machine's serial console", Args: oneArg(machineArg), ValidArgsFunction: c.completeMachine,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			if lines < -1 {
				return usageError("--tail %d: it must be a number of lines, 0 or more", lines)
			}
			return daemon.console(ctx, args[0], lines, follow, c.stdout)
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing new output until the machine is destroyed or Ctrl-C is pressed")
	cmd.Flags().IntVarP(&lines, "tail", "n", -1, "print only the last N lines of what the daemon has kept")
	cmd.Flags().Lookup("tail").DefValue = "" // -1 is no number of lines
	return cmd
}

// console copies a machine's console to w, beginning with its last lines, or with all of it if lines is negative.
func (c *apiClient) console(ctx context.Context, id string, lines int, follow bool, w io.Writer) error {
	if lines < 0 {
		return c.stream(ctx, consolePath(id, 0, follow), w)
	}
	var kept bytes.Buffer
	if err := c.stream(ctx, consolePath(id, 0, false), &kept); err != nil {
		return err
	}
	text := kept.Bytes()
	tail := lastLines(text, lines)
	if !follow {
		_, err := w.Write(tail)
		return err
	}
	if len(text) < consoleKept {
		// The daemon has all of it, so that what precedes the last lines can be left out exactly, even if there is more
		// output meanwhile.
		return c.stream(ctx, consolePath(id, 0, true), &skipWriter{w, len(text) - len(tail)})
	}
	return c.stream(ctx, consolePath(id, max(len(tail), 1), true), w)
}

// consolePath returns the request for a console. If tail is 0, it is for all that the daemon has kept.
func consolePath(id string, tail int, follow bool) string {
	query := make(url.Values)
	if follow {
		query.Set("follow", "1")
	}
	if tail != 0 {
		query.Set("tail", strconv.Itoa(tail))
	}
	if len(query) == 0 {
		return vmPath(id, "/console")
	}
	return vmPath(id, "/console?"+query.Encode())
}

// lastLines returns the last n lines of text. The last one may lack its newline.
func lastLines(text []byte, n int) []byte {
	start := len(bytes.TrimSuffix(text, []byte("\n")))
	if n == 0 {
		return nil
	}
	for range n {
		if start = bytes.LastIndexByte(text[:start], '\n'); start < 0 {
			return text
		}
	}
	return text[start+1:]
}

// skipWriter leaves out the first bytes.
type skipWriter struct {
	io.Writer
	skip int
}

func (w *skipWriter) Write(b []byte) (int, error) {
	skipped := min(w.skip, len(b))
	w.skip -= skipped
	n, err := w.Writer.Write(b[skipped:])
	return skipped + n, err
}

func newScreenshotCommand(c *cli) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "screenshot ID -o FILE", Short: "Save a screenshot of a machine as a PNG file", ValidArgsFunction: c.completeMachine,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := checkArgs(args, 1, 1, machineArg); err != nil {
				return err
			}
			if file == "" {
				return fmt.Errorf("--output is missing: the file for the screenshot, or - for stdout")
			}
			return nil
		},
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			return saveScreenshot(ctx, c, daemon, args[0], file)
		}),
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the file; - for stdout")
	return cmd
}

func saveScreenshot(ctx context.Context, c *cli, daemon *apiClient, id, file string) error {
	path := vmPath(id, "/screenshot")
	if file == "-" {
		return daemon.stream(ctx, path, c.stdout)
	}
	f, err := os.OpenFile(file+".part-"+rand.Text(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) // #nosec G302 -- no secret
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	err = daemon.stream(ctx, path, f)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("writing %s: %w", file, closeErr)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", file, err), os.Remove(f.Name()))
	}
	c.infof("%s written", file)
	return nil
}
