package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// newImagePullCommand returns the verb that gets an image before machines need it.
func newImagePullCommand(c *cli) *cobra.Command {
	var checksum, checksumType string
	var noWait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "pull URL --checksum SUM", Short: "Get an image before machines need it",
		Long: "Lets the daemon download, verify, unpack and prepare an image, so that its machines start without a\n" +
			"download. After Ctrl-C the daemon goes on; images rm ends it.",
		Example: "  osx-builder images pull https://example.com/debian.tar.gz --checksum auto",
		Args: func(_ *cobra.Command, args []string) error {
			if err := checkArgs(args, 1, 1, "the URL of the image's archive"); err != nil {
				return err
			}
			if checksum == "" {
				return errors.New("the checksum is missing: use --checksum with its hex digits, or auto")
			}
			return nil
		},
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			o := requestOptions{image: args[0], checksum: checksum, checksumType: checksumType}
			request := make(map[string]json.RawMessage)
			if err := o.mergeImage(ctx, c, daemon, request, o.imageFields()); err != nil {
				return err
			}
			document, err := daemon.do(ctx, http.MethodPost, "/images", request["image"], nil)
			if err != nil {
				return nameImageFlags(err)
			}
			if !noWait {
				if document, err = waitForImage(ctx, c, daemon, document, timeout); err != nil {
					return err
				}
			}
			return c.printImage(document)
		}),
	}
	cmd.Flags().StringVar(&checksum, "checksum", "", "checksum of the archive, in hex or as a line of sha256sum; auto computes it from the archive at the URL, auto:FILE from a local copy")
	cmd.Flags().StringVar(&checksumType, "checksum-type", "", "md5, sha1, sha256 or sha512 (default: inferred from the checksum; sha256 for auto)")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the image is ready")
	addTimeoutFlag(cmd, &timeout, defaultTimeout)
	completeFlag(cmd, "checksum-type", "md5", "sha1", "sha256", "sha512")
	return cmd
}

// nameImageFlags adds the flags to the errors of an image's fields.
func nameImageFlags(err error) error {
	var e *apiError
	if errors.As(err, &e) {
		for _, each := range e.all() {
			if flag := flagOf("image." + each.Field); flag != "image" {
				each.flag = flag
			}
		}
	}
	return err
}

// newImagePinCommand returns the verb pin or unpin.
func newImagePinCommand(c *cli, use, short string, pinned bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " CHECKSUM", Short: short, Args: someArgs("the image's checksum"), ValidArgsFunction: c.completeImages,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			for _, arg := range args {
				document, err := daemon.do(ctx, http.MethodPatch, imagePath(arg, ""), fmt.Appendf(nil, `{"pinned": %t}`, pinned), nil)
				if err != nil {
					return err
				}
				if err := c.printImage(document); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func imagePath(checksum, query string) string { return "/images/" + url.PathEscape(checksum) + query }

// waitForImage waits until an image is ready, and shows its progress. It returns the document as it was last read.
func waitForImage(ctx context.Context, c *cli, daemon *apiClient, document []byte, timeout time.Duration) ([]byte, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	p := c.newProgress()
	defer p.end()
	for {
		var i image
		if err := json.Unmarshal(document, &i); err != nil {
			return document, fmt.Errorf("reading the image's document: %w", err)
		}
		m := machine{Phase: i.Phase, Progress: i.Progress}
		m.Image.URL = i.URL
		p.update(m)
		switch i.Phase {
		case "ready":
			return document, nil
		case "failed":
			return document, &exitError{exitFailed, fmt.Errorf("image %s failed: %w", i.file(), i.Error)}
		}
		next, err := daemon.get(ctx, imagePath(i.ChecksumType+"-"+i.Checksum, "?wait="+pollInterval.String()))
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return document, &exitError{exitTimeout, fmt.Errorf("after %s image %s is not ready; it is %s (--timeout)", durationText(timeout), i.file(), i.Phase)}
		case ctx.Err() != nil:
			return document, fmt.Errorf("interrupted; the daemon goes on with image %s", i.file())
		case err != nil:
			return document, err
		}
		document = next
	}
}

// printImage prints an image for people on a terminal, and otherwise its document.
func (c *cli) printImage(document []byte) error {
	if !c.forPeople() {
		return c.printDocument(document)
	}
	var i image
	if err := json.Unmarshal(document, &i); err != nil {
		return fmt.Errorf("reading the image's document: %w", err)
	}
	pinned := ""
	if i.Pinned {
		pinned = ", pinned"
	}
	_, err := fmt.Fprintf(c.stdout, "%s%s  %s (%.*s)\n", i.Phase, pinned, i.file(), imageDigits, i.Checksum)
	return err
}
