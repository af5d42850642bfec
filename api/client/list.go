package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

func newListCommand(c *cli) *cobra.Command {
	var phase, status string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the machines", Args: cobra.NoArgs,
		RunE: c.run(func(ctx context.Context, _ []string) error {
			query := make(url.Values)
			for name, value := range map[string]string{"phase": phase, "status": status} {
				if value != "" {
					query.Set(name, value)
				}
			}
			return printList(ctx, c, "/vms?"+query.Encode(), asJSON, printMachines)
		}),
	}
	cmd.Flags().StringVar(&phase, "phase", "", "only machines in this phase, for example ready")
	cmd.Flags().StringVar(&status, "status", "", "only machines in this power state, for example powered-on")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newImagesCommand(c *cli) *cobra.Command {
	cmd := newImageListCommand(c, "images", "List the cached images that machines are cloned from")
	var force bool
	remove := &cobra.Command{
		Use: "rm CHECKSUM...", Short: "Remove cached images", Args: cobra.MinimumNArgs(1), ValidArgsFunction: c.completeImages,
		RunE: c.run(func(ctx context.Context, args []string) error {
			return forEach(ctx, c, args, force, "removed", (*apiClient).removeImage)
		}),
	}
	remove.Flags().BoolVar(&force, "force", false, "ignore images that do not exist")
	cmd.AddCommand(newImageListCommand(c, "list", "List the cached images"), remove)
	return cmd
}

func newImageListCommand(c *cli, use, short string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: c.run(func(ctx context.Context, _ []string) error {
			return printList(ctx, c, "/images", asJSON, printImages)
		}),
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func addJSONFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print the daemon's JSON instead of a table")
}

// printList prints the list at path, either as the daemon sent it or as a table.
func printList(ctx context.Context, c *cli, path string, asJSON bool, table func(o *output, document []byte) error) error {
	daemon, err := c.newClient()
	if err != nil {
		return err
	}
	document, err := daemon.get(ctx, path)
	if err != nil || asJSON {
		return errors.Join(err, c.printDocument(document))
	}
	return table(&c.output, document)
}

func printMachines(o *output, document []byte) error {
	var list struct{ VMs []machine }
	if err := json.Unmarshal(document, &list); err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	return o.printTable("ID\tPHASE\tSTATUS\tADDRESS\tCPUS\tMEMORY\tIMAGE\tCREATED", func(w io.Writer) {
		for _, m := range list.VMs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", m.ID, m.phaseText(), m.Status, m.IP, m.CPUs, m.Memory, path.Base(m.Image.URL), ageText(m.CreatedAt))
		}
	})
}

func printImages(o *output, document []byte) error {
	var list struct{ Images []image }
	if err := json.Unmarshal(document, &list); err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	return o.printTable("CHECKSUM\tDISK\tVMS\tUSED\tURL", func(w io.Writer) {
		for _, i := range list.Images {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", i.Checksum, humanize.IBytes(uint64(i.DiskBytes)), i.VMs, ageText(i.LastUsedAt), i.URL)
		}
	})
}
