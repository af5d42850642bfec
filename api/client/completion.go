package client

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout is the longest time that the daemon may take to answer when the user presses Tab.
const completionTimeout = 2 * time.Second

// completeMachines completes the ids of machines. The descriptions are their phases.
func (s *settings) completeMachines(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list struct{ VMs []machine }
	s.fetchCompletions(cmd, "/vms", &list)
	var words []string
	for _, m := range list.VMs {
		words = append(words, cobra.CompletionWithDesc(m.ID, m.phaseText()))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeImages completes the checksums of cached images. The descriptions are their URLs.
func (s *settings) completeImages(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list struct{ Images []image }
	s.fetchCompletions(cmd, "/images", &list)
	var words []string
	for _, i := range list.Images {
		words = append(words, cobra.CompletionWithDesc(i.Checksum, i.URL))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// fetchCompletions reads the list at path. After an error the list stays empty: completion must not print errors.
func (s *settings) fetchCompletions(cmd *cobra.Command, path string, list any) {
	daemon, err := s.newClient()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	if b, err := daemon.get(ctx, path); err == nil {
		_ = json.Unmarshal(b, list)
	}
}
