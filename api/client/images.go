package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

func (c *cli) imagesCommand() *cobra.Command {
	cmd := c.imageListCommand("images", "List the unpacked images that machines are cloned from")
	var force bool
	remove := &cobra.Command{
		Use: "rm CHECKSUM...", Short: "Remove unpacked images", Args: cobra.MinimumNArgs(1), ValidArgsFunction: c.imageSums,
		RunE: c.verb(func(ctx context.Context, args []string) error {
			return c.each(ctx, args, force, "removed", (*conn).removeImage)
		}),
	}
	remove.Flags().BoolVar(&force, "force", false, "count those that are not there as removed")
	cmd.AddCommand(c.imageListCommand("list", "List them"), remove)
	return cmd
}

func (c *cli) imageListCommand(use, short string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			return c.list(ctx, "/images", asJSON, c.printImages)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the daemon's JSON in place of a table")
	return cmd
}

func (c *cli) printImages(document []byte) error {
	var list struct{ Images []image }
	if err := json.Unmarshal(document, &list); err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	return c.table("CHECKSUM\tDISK\tVMS\tUSED\tURL", func(w io.Writer) {
		for _, i := range list.Images {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", i.Checksum, humanize.IBytes(uint64(i.DiskBytes)), i.VMs, age(i.LastUsedAt), i.URL)
		}
	})
}

func (n *conn) removeImage(ctx context.Context, sum string) error {
	_, err := n.do(ctx, http.MethodDelete, "/images/"+url.PathEscape(sum), nil, nil)
	return err
}
