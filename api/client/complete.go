package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
)

// completeTime is what the daemon may take to answer a press of the tab key.
const completeTime = 2 * time.Second

// machineIDs completes the ids of machines, with their phases.
func (c *cli) machineIDs(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list struct{ VMs []machine }
	var words []string
	if c.complete(cmd, "/vms", &list) {
		for _, m := range list.VMs {
			words = append(words, cobra.CompletionWithDesc(m.ID, m.phaseText()))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// imageSums completes the checksums of unpacked images, with their URLs.
func (c *cli) imageSums(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list struct{ Images []image }
	var words []string
	if c.complete(cmd, "/images", &list) {
		for _, i := range list.Images {
			words = append(words, cobra.CompletionWithDesc(i.Checksum, i.URL))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// complete asks the daemon for words. Where it has none there are none: a
// shell that completes a line shows no errors.
func (c *cli) complete(cmd *cobra.Command, path string, list any) bool {
	n, err := c.dial()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	b, err := n.get(ctx, path)
	return err == nil && json.Unmarshal(b, list) == nil
}
