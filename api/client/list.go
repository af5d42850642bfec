package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

// listOptions are the flags of list.
type listOptions struct {
	phase, status, owner string
	labels               []string
	wide, watch          bool
}

func newListCommand(c *cli) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls", "ps"}, Short: "List the machines", Args: noArgs,
		Long: "Lists the machines. On a terminal the table fits its width; --wide shows all columns. A pipe or a file gets\nthe wide table. With --quiet only the ids are printed, and with --json the daemon's JSON.",
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, _ []string) error {
			if o.watch {
				return watch(ctx, c, daemon, o)
			}
			return o.run(ctx, c, daemon)
		}),
	}
	f := cmd.Flags()
	o.addFilterFlags(cmd)
	f.BoolVarP(&o.wide, "wide", "w", false, "show all columns, with whole ids")
	f.BoolVar(&o.watch, "watch", false, "show the table until Ctrl-C, and keep it up to date")
	return cmd
}

func (o *listOptions) addFilterFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.phase, "phase", "", "only machines in this phase, for example ready")
	f.StringArrayVar(&o.labels, "label", nil, "only machines with this label, for example job=1234; may be repeated")
	f.StringVar(&o.owner, "owner", "", "only machines that a token of this name created")
	f.StringVar(&o.status, "status", "", "only machines in this power state, for example powered-on")
	completeFlag(cmd, "phase", "accepted", "downloading", "unpacking", "cloning", "starting", "waiting", "ready", "failed", "destroying")
	completeFlag(cmd, "status", "powered-on", "powered-off", "powering-on", "powering-off", "suspended", "suspending", "resetting", "paused", "blocked")
}

// filters reports whether the flags choose some of the machines.
func (o *listOptions) filters() bool {
	return o.phase != "" || o.status != "" || o.owner != "" || len(o.labels) > 0
}

// path is the request for the list.
func (o *listOptions) path() string {
	query := make(url.Values)
	for name, value := range map[string]string{"phase": o.phase, "status": o.status, "owner": o.owner} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for _, l := range o.labels {
		query.Add("label", l)
	}
	if len(query) == 0 {
		return "/vms"
	}
	return "/vms?" + query.Encode()
}

func (o *listOptions) run(ctx context.Context, c *cli, daemon *apiClient) error {
	document, list, err := o.read(ctx, daemon)
	switch {
	case err != nil:
		return err
	case c.quiet:
		return printIDs(c, list)
	case c.json:
		return c.printDocument(document)
	case len(list) == 0:
		c.infof("%s", o.none())
		return nil
	}
	return c.printTable(o.table(list, terminalWidth(c.stdout) == 0), o.wide)
}

// read reads the list.
func (o *listOptions) read(ctx context.Context, daemon *apiClient) (document []byte, _ []machine, err error) {
	if document, err = daemon.get(ctx, o.path()); err != nil {
		return nil, nil, err
	}
	var list struct{ VMs []machine }
	if err := json.Unmarshal(document, &list); err != nil {
		return nil, nil, fmt.Errorf("reading the list: %w", err)
	}
	return document, list.VMs, nil
}

// none says that there is no machine.
func (o *listOptions) none() string {
	if o.filters() {
		return "there are no such machines"
	}
	return "there are no machines; osx-builder create makes one"
}

func printIDs(c *cli, list []machine) error {
	for _, m := range list {
		if _, err := fmt.Fprintln(c.stdout, m.ID); err != nil {
			return err
		}
	}
	return nil
}

// table returns the table of the machines. The wide one has whole ids, and separate columns for phase and power state.
func (o *listOptions) table(list []machine, piped bool) table {
	value := func(f func(machine) string) func(int) string {
		return func(row int) string { return f(list[row]) }
	}
	name := column{title: "NAME", value: value(func(m machine) string { return m.Name }), shrink: true}
	address := column{title: "ADDRESS", value: value(machine.address), shrink: true}
	rest := []column{
		{title: "AGE", value: value(func(m machine) string { return ageText(m.CreatedAt) })},
		{title: "CPUS", value: value(func(m machine) string { return countText(m.CPUs) })},
		{title: "MEMORY", value: value(func(m machine) string { return m.Memory })},
		{title: "IMAGE", value: value(machine.file)},
	}
	if o.wide || piped {
		return table{rows: len(list), columns: append([]column{
			{title: "ID", value: value(func(m machine) string { return m.ID })},
			name,
			{title: "PHASE", value: value(machine.phaseText), color: func(row int) string { return stateColor(list[row].state()) }},
			{title: "STATUS", value: value(func(m machine) string { return m.Status })},
			address,
		}, rest...)}
	}
	for i := range rest {
		rest[i].optional = true
	}
	return table{rows: len(list), columns: append([]column{
		{title: "ID", value: value(shortID)},
		name,
		{title: "STATE", value: value(machine.state), color: func(row int) string { return stateColor(list[row].state()) }},
		address,
	}, rest...)}
}

// phaseText returns the phase with its progress or error code.
func (m machine) phaseText() string {
	switch {
	case m.Error != nil:
		return m.Phase + " (" + m.Error.Code + ")"
	case m.percent() != "":
		return m.Phase + " " + m.percent()
	default:
		return m.Phase
	}
}

func newImagesCommand(c *cli) *cobra.Command {
	cmd := newImageListCommand(c, "images", "List the cached images that machines are cloned from")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("there is no verb images %q; there are images list, pull, pin, unpin and rm", args[0])
		}
		return nil
	}
	var force bool
	remove := &cobra.Command{
		Use: "rm CHECKSUM...", Aliases: []string{"delete", "remove"}, Short: "Remove cached images",
		Long: "Removes cached images. The first four or more digits of a checksum are enough.",
		Args: someArgs("the image's checksum"), ValidArgsFunction: c.completeImages,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, args []string) error {
			return forEach(ctx, c, args, force, "removed", daemon.removeImage)
		}),
	}
	remove.Flags().BoolVar(&force, "force", false, "ignore images that do not exist")
	cmd.AddCommand(newImageListCommand(c, "list", "List the cached images"), newImagePullCommand(c), remove,
		newImagePinCommand(c, "pin", "Exempt images from being removed to make room", true),
		newImagePinCommand(c, "unpin", "Allow images to be removed to make room again", false))
	return cmd
}

func newImageListCommand(c *cli, use, short string) *cobra.Command {
	var wide bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArgs,
		RunE: c.runWithDaemon(func(ctx context.Context, daemon *apiClient, _ []string) error {
			document, err := daemon.get(ctx, "/images")
			if err != nil || c.json {
				return errors.Join(err, c.printDocument(document))
			}
			return printImages(c, document, wide || terminalWidth(c.stdout) == 0)
		}),
	}
	cmd.Flags().BoolVarP(&wide, "wide", "w", false, "show whole checksums and URLs")
	return cmd
}

// imageDigits is the length of a shortened checksum.
const imageDigits = 12

func printImages(c *cli, document []byte, wide bool) error {
	var list struct{ Images []image }
	if err := json.Unmarshal(document, &list); err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	images := list.Images
	if c.quiet {
		for _, i := range images {
			fmt.Fprintln(c.stdout, i.Checksum)
		}
		return nil
	}
	if len(images) == 0 {
		c.infof("there are no cached images")
		return nil
	}
	checksum := func(row int) string {
		if wide {
			return images[row].Checksum
		}
		return images[row].Checksum[:min(imageDigits, len(images[row].Checksum))]
	}
	return c.printTable(table{rows: len(images), columns: []column{
		{title: "CHECKSUM", value: checksum},
		{title: "DISK", value: func(row int) string { return humanize.IBytes(uint64(images[row].DiskBytes)) }},
		{title: "VMS", value: func(row int) string { return fmt.Sprint(images[row].VMs) }},
		{title: "USED", value: func(row int) string { return ageText(images[row].LastUsedAt) }},
		{title: "URL", value: func(row int) string { return images[row].URL }, shrink: true},
	}}, wide)
}
